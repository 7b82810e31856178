"""The history of a structure: what changed, and what was measured. Append-only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from diffstruct.history.samples import FEWEST, MEASUREMENTS, NUMBERS, SAMPLES, Sample, Spacing


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
    """Events, measurements and samples, in the order in which they happened.

    Events are kept for good. Samples, and the measurements that a structure adds, are thinned out when there
    are too many, to every second one, so that a run of any length has a history of about the same size.

    Args:
        events: changes of structure.
        measurements: the loss over time, as `Structure.step(loss)` is told it, or of a run of the paper's.
        names: when blocks came or went: how many events there were, and the names that widths had had until
            then, by those that they have had since; None for new ones.
        samples: what units were worth, from time to time.
        sampling: which decisions have a sample.
        measuring: which decisions have a measurement.
    """

    events: list[Event] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    names: list[tuple[int, Mapping[str, str | None]]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    sampling: Spacing = field(default_factory=Spacing)
    measuring: Spacing = field(default_factory=Spacing)

    @staticmethod
    def of_decisions(decisions: int) -> History:
        """The history of a run with so many decisions, as far as that is planned."""
        return History(sampling=Spacing(max(1, math.ceil(decisions / SAMPLES))))

    def mark(self) -> Callable[[], None]:
        """Returns a function that takes away what was added since."""
        back_to = [(each, len(each)) for each in (self.events, self.measurements, self.names)]
        samples, sampling, measuring = (
            [*self.samples],
            vars(self.sampling).copy(),
            vars(self.measuring).copy(),
        )
        measurements = [*self.measurements] if len(self.measurements) >= MEASUREMENTS else None

        def back() -> None:
            for each, length in back_to:
                del each[length:]
            if measurements is not None:  # they may have been thinned
                self.measurements[:] = measurements
            self.samples[:] = samples
            vars(self.sampling).update(sampling)
            vars(self.measuring).update(measuring)

        return back

    def measure(self, measurement: Callable[[], Measurement]) -> None:
        """Add a measurement, if this moment is one of those that have one.

        Args:
            measurement: makes it; called only then.
        """
        if self.measuring.passes():
            self.measurements.append(measurement())
            self.measuring.thin(self.measurements, lambda: len(self.measurements) > MEASUREMENTS)

    def sample(self, sample: Callable[[], Sample], decisions: int = 1) -> None:
        """Add a sample, if one of some decisions is to have one.

        Args:
            sample: makes it; called only then.
            decisions: that a training loop has made since the last call; if any of them is to have a sample,
                the last one has it.
        """
        if self.sampling.passes(decisions):
            self.samples.append(sample())
            self.sampling.thin(self.samples, self._too_many)

    def end(self, sample: Sample) -> None:
        """Add the last sample of a run, in the place of one of the same moment."""
        last = self.samples[-1:]
        if last and (last[0].step, last[0].events) == (sample.step, sample.events):
            self.samples.pop()
        self.samples.append(sample)

    def _too_many(self) -> bool:
        count = len(self.samples)
        return count > SAMPLES or (count > FEWEST and sum(each.numbers for each in self.samples) > NUMBERS)

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
