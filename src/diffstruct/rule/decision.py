"""What the rule decides about one width, and what it remembers of the width's units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RuleState:
    """What the rule remembers of each unit.

    Args:
        ages: `[n]` int64, decisions that the unit has lived through.
        risen: `[n]` bool, whether its importance ever was above the threshold.
    """

    ages: NDArray[np.int64]
    risen: NDArray[np.bool_]

    @staticmethod
    def initial(size: int) -> RuleState:
        """The state of `size` new units."""
        return RuleState(np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.bool_))


@dataclass(frozen=True)
class Decision:
    """What happens to the units of one width.

    Args:
        size: units before.
        keep: indices of the units that stay, ascending.
        add: number of new units, placed after those that stay.
        state: the rule's memory of the units after the change.
    """

    size: int
    keep: tuple[int, ...]
    add: int
    state: RuleState

    @property
    def changes(self) -> bool:
        """Whether anything changes at all."""
        return self.add > 0 or len(self.keep) < self.size

    @property
    def new_size(self) -> int:
        """Units after."""
        return len(self.keep) + self.add


def decision(removed: NDArray[np.bool_], add: int, memory: RuleState) -> Decision:
    """What `choose` returned, as a decision; `memory` is that of the units before it."""
    size, stays = len(removed), ~removed
    if add or removed.any():
        new = RuleState.initial(add)
        memory = RuleState(
            np.concatenate([memory.ages[stays], new.ages]),
            np.concatenate([memory.risen[stays], new.risen]),
        )
    return Decision(size, tuple(np.flatnonzero(stays).tolist()), add, memory)


def addition(memory: RuleState, add: int) -> Decision:
    """All units stay, and so many come; `memory` is that of the units before it."""
    return decision(np.zeros(len(memory.ages), np.bool_), add, memory)
