"""Who lived when: units followed through a run, from sizes at the start and events alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffstruct.history import Event

ALIVE = 2**32 - 1
"""Stands for the death of a unit that is still there."""


@dataclass(frozen=True)
class Lives:
    """All units that a width ever had, in the order of their birth.

    Units that stay keep their order and new ones come behind them, so those that are alive at one moment lie
    in the network in this order too.

    Args:
        born: `[lives]`, how many of the run's events there had been with the one that added the unit; 0
            for units from the start.
        died: `[lives]`, likewise with the one that removed it; `ALIVE` if none has.
    """

    born: NDArray[np.int64]
    died: NDArray[np.int64]

    def alive(self, events: int) -> NDArray[np.int64]:
        """`[units]`, which there are after so many events, in the units' order."""
        return np.flatnonzero((self.born <= events) & (events < self.died))


def lives_of(width: str, start: int, events: Sequence[Event]) -> Lives:
    """The lives of one width's units.

    Args:
        width: its name in the events.
        start: units that it had when it came.
        events: of the whole run, in order.

    Raises:
        ValueError: an event removes a unit that there is not, or leaves another size than it says.
    """
    born = [0] * start
    died = [ALIVE] * start
    alive = list(range(start))
    for count, event in enumerate(events, 1):
        if event.width != width:
            continue
        gone = set(event.removed)
        if gone and not 0 <= min(gone) <= max(gone) < len(alive):
            raise ValueError(f"event {count} removes unit {max(gone)} of {width!r}, which has {len(alive)}")
        for index in gone:
            died[alive[index]] = count
        alive = [life for index, life in enumerate(alive) if index not in gone]
        alive.extend(range(len(born), len(born) + event.added))
        born.extend([count] * event.added)
        died.extend([ALIVE] * event.added)
        if len(alive) != event.size:
            raise ValueError(f"event {count} leaves {len(alive)} units of {width!r}, and says {event.size}")
    return Lives(np.array(born, np.int64), np.array(died, np.int64))


def sizes_of(width: str, start: int, events: Sequence[Event]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The steps at which a width's size changed, the first of them 0, and its size from each of them on."""
    own = [(event.step, event.size) for event in events if event.width == width]
    steps, sizes = zip((0, start), *own, strict=True)
    return np.array(steps, np.int64), np.array(sizes, np.int64)
