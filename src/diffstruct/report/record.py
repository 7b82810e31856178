"""One run as a page shows it: plain values, made from a structure or read from a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from diffstruct.history import Event


class WidthSample(NamedTuple):
    """The units of a width at one moment.

    The units are those that there are after the first `events` events of the record; the events of `step`
    itself may be among these or not, so that this number, and not the step, says which units are meant.
    """

    step: int
    importances: Sequence[float]
    """`[units]`, in the units' order, in the record's `unit_of_importance`. A unit that was not measured
    yet has NaN."""
    threshold: float | None
    """What they must reach, in the same unit of measure; None where there is no such thing."""
    events: int
    """How many of the record's events had happened, those of other widths counted."""


@dataclass(frozen=True)
class WidthRecord:
    """One learned width of a run.

    Args:
        name: by which the events mean it; no two widths of a record share one.
        kind: `"units"`, or `"blocks"` of a depth.
        start: units that it had when it came.
        places: where it lies in the model, as `print(structure)` shows it; empty where that is not known.
        samples: in order; some hundreds at most, the last of them the latest that is known.
        came: the step after which it came, with a new block; 0 where it was there from the start.
        gone: the step after which it left, with its block; None where it is still there.
    """

    name: str
    kind: str
    start: int
    places: str = ""
    samples: Sequence[WidthSample] = ()
    came: int = 0
    gone: int | None = None


@dataclass(frozen=True)
class Record:
    """One run, and all that a page shows of it.

    Args:
        title: what the run is called.
        step: steps made; in the paper's runs a step is an update, or cycle.
        total_steps: planned; None where that is not known.
        loss: `(step, loss)`, in order.
        widths: in the order of the network, from input to output; those that are gone last.
        events: of the history, in order; their `width` is the name of one of `widths`, whatever it was called
            at the time. In one event, first units are removed (indices before it), then added behind the
            others.
        cost: `(step, cost)` of the whole model, by `"parameters"` and `"multiply-adds"` (for an example),
            those that are known.
        budget: what the finished model may cost, by the same names.
        settings: of the run, to be shown as a table.
        floor: `(step, loss)`, the best loss that any network can reach, from each of these steps on, where
            that is known; None is "not known from here on", and no entry at all "not known".
        unit_of_importance: what importances are in.
        unit_of_loss: what the loss is in; empty where that is not known.
        status: `"running"`, `"finished"`, `"stopped"` or `"diverged"`.
    """

    title: str
    step: int
    total_steps: int | None
    loss: Sequence[tuple[int, float]]
    widths: Sequence[WidthRecord]
    events: Sequence[Event]
    cost: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    budget: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, str | int | float | None] = field(default_factory=dict)
    floor: Sequence[tuple[int, float | None]] = ()
    unit_of_importance: str = "importance"
    unit_of_loss: str = ""
    status: str = "running"
