"""The history of a structure: what changed, and what was measured. Append-only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol


@dataclass(frozen=True)
class Event:
    """One change of structure.

    Args:
        step: the step after which it happened, counted from 1.
        width: the name that the width had.
        removed: indices, before the change, of the units that were removed.
        added: how many units were added, behind those that stayed.
        size: units after the change.
        cost: of what was removed, measured before, in the criterion's unit; of `TaylorImportance` the share
            of what the network had won. None where it was not measured.
    """

    step: int
    width: str
    removed: tuple[int, ...]
    added: int
    size: int
    cost: float | None = None


@dataclass(frozen=True)
class Measurement:
    """The state of a run after an update: the (smoothed) loss, and the units of all widths together."""

    update: int
    loss: float
    units: int


class Changed(Protocol):
    """What the history must know of a change of one width; see `surgery.Change`."""

    @property
    def keep(self) -> Sequence[int]:
        """Indices of the units that stay."""

    @property
    def add(self) -> int:
        """How many are added."""

    @property
    def size(self) -> int:
        """Units before the change."""

    @property
    def new_size(self) -> int:
        """Units after it."""


@dataclass
class History:
    """Events and measurements, in the order in which they happened."""

    events: list[Event] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    names: list[tuple[int, Mapping[str, str | None]]] = field(default_factory=list)
    """When blocks came or went: how many events there were, and the names that widths had had until then, by
    those that they have had since; None for new ones."""

    def mark(self) -> Callable[[], None]:
        """Returns a function that takes away what was added since."""
        lengths = [(each, len(each)) for each in (self.events, self.measurements, self.names)]

        def back() -> None:
            for each, length in lengths:
                del each[length:]

        return back

    def record(
        self, step: int, changes: Mapping[str, Changed], costs: Mapping[str, float] = MappingProxyType({})
    ) -> tuple[Event, ...]:
        """Add the events of some changes, made after a step, and what they cost, by the widths' names;
        return them."""
        events = []
        for name, change in changes.items():
            kept = set(change.keep)
            removed = tuple(unit for unit in range(change.size) if unit not in kept)
            cost = costs.get(name) if removed else None
            events.append(Event(step, name, removed, change.add, change.new_size, cost))
        self.events.extend(events)
        return tuple(events)

    def added(self, width: str | None = None) -> int:
        """Units added so far, to one width or to all."""
        return sum(event.added for event in self.of(width))

    def removed(self, width: str | None = None) -> int:
        """Units removed so far, from one width or from all."""
        return sum(len(event.removed) for event in self.of(width))

    def of(self, width: str | None = None) -> Iterator[Event]:
        """The events of all widths, or of one, by the name that it has now, the last ones first."""
        events, renamed = len(self.events), [*self.names]
        while events or renamed:
            if renamed and renamed[-1][0] >= events:
                _, before = renamed.pop()
                if width is not None:
                    known = before.get(width, width)
                    if known is None:
                        return
                    width = known
                continue
            events -= 1
            if width in (None, self.events[events].width):
                yield self.events[events]
