"""The history of a structure: what changed, and what was measured. Append-only."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """One change of structure.

    Args:
        update: the update after which it happened, counted from 1.
        width: the width's name.
        removed: indices, before the change, of the units that went.
        added: how many units came, behind those that stayed.
        size: units after the change.
    """

    update: int
    width: str
    removed: tuple[int, ...]
    added: int
    size: int


@dataclass(frozen=True)
class Measurement:
    """The state of a run after an update: the (smoothed) loss, and the units of all widths together."""

    update: int
    loss: float
    units: int


@dataclass
class History:
    """Events and measurements, in the order in which they happened."""

    events: list[Event] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)

    def added(self, width: str | None = None) -> int:
        """Units that came so far, to one width or to all."""
        return sum(event.added for event in self.events if width in (None, event.width))

    def removed(self, width: str | None = None) -> int:
        """Units that went so far, from one width or from all."""
        return sum(len(event.removed) for event in self.events if width in (None, event.width))
