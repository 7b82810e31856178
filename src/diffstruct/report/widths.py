"""Of a history, each width under one name, though blocks come and go and widths are renamed. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from diffstruct.history import Event, History
from diffstruct.report.record import WidthRecord, WidthSample


@dataclass(frozen=True)
class WidthNow:
    """A width at the end of a history; as in `WidthRecord`, and its units now."""

    name: str
    kind: str
    places: str
    size: int


def followed(history: History, now: Sequence[WidthNow]) -> tuple[list[WidthRecord], list[Event]]:
    """The widths of a history, those that are gone last; and its events, under the names of these.

    Args:
        history: of any run.
        now: the widths that there are at its end, in their order.
    """
    spans = _Spans(history, [width.name for width in now])
    events = [replace(event, width=spans.name(at, event.width)) for at, event in enumerate(history.events)]
    samples: dict[str, list[WidthSample]] = {}
    for sample in history.samples:
        for name, importances in sample.importances.items():
            entry = WidthSample(sample.step, importances.tolist(), sample.thresholds[name], sample.events)
            samples.setdefault(spans.name(sample.events, name), []).append(entry)
    first: dict[str, Event] = {}
    for event in events:
        first.setdefault(event.width, event)
    known = {width.name: width for width in now}
    records = []
    for name in dict.fromkeys([*known, *samples, *first]):
        own = samples.get(name, [])
        width = known.get(name) or WidthNow(name, "units", "", len(own[0].importances) if own else 0)
        start = width.size if name not in first else _before(first[name])
        times = spans.came.get(name, 0), spans.gone.get(name)
        records.append(WidthRecord(name, width.kind, start, width.places, own, *times))
    return records, events


def _before(event: Event) -> int:
    """Units before an event."""
    return event.size - event.added + len(event.removed)


@dataclass
class _Spans:
    """The names of widths between two changes of blocks.

    Args:
        history: of any run.
        now: the names of the widths that there are at its end, which they keep throughout.
    """

    history: History
    now: Sequence[str]
    came: dict[str, int] = field(default_factory=dict)
    """When widths came, of those that came with a block."""
    gone: dict[str, int] = field(default_factory=dict)
    """When widths went, of those that went with a block."""

    def __post_init__(self) -> None:
        history = self.history
        self._ends = [count for count, _ in history.names]
        seen: list[dict[str, None]] = [{} for _ in range(len(self._ends) + 1)]
        """The names that are found between two changes."""
        for at, event in enumerate(history.events):
            seen[self._span(at)][event.width] = None
        for sample in history.samples:
            seen[self._span(sample.events)].update(dict.fromkeys(sample.importances))
        names = {name: name for name in [*seen[-1], *self.now]}
        self._names = [names]
        for (count, origin), before in zip(reversed(history.names), reversed(seen[:-1]), strict=True):
            step = history.events[count - 1].step if count else 0
            earlier = {was: names.get(name, name) for name, was in origin.items() if was is not None}
            self.came.update({names.get(name, name): step for name, was in origin.items() if was is None})
            for name in before:
                if name not in earlier:
                    earlier[name] = f"{name} (until step {step})"
                    self.gone[earlier[name]] = step
            names = earlier
            self._names.insert(0, names)

    def name(self, events: int, name: str) -> str:
        """The name throughout of a width that had this name after so many events."""
        return self._names[self._span(events)][name]

    def _span(self, events: int) -> int:
        return bisect_right(self._ends, events)
