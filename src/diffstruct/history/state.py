"""A history as a state dict has it: plain values and tensors, in columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffstruct.history.history import Event, History, Measurement
from diffstruct.history.samples import COSTS, Sample, Spacing
from diffstruct.states import Fields


def history_state(history: History) -> dict[str, Any]:
    """A history in columns: a long run has hundreds of thousands of events and measurements."""
    events, measurements = history.events, history.measurements
    return {
        "events": {
            "step": _column([event.step for event in events]),
            "width": [event.width for event in events],
            "removed": _column([unit for event in events for unit in event.removed]),
            "counts": _column([len(event.removed) for event in events]),
            "added": _column([event.added for event in events]),
            "size": _column([event.size for event in events]),
            "measured": torch.tensor([event.cost is not None for event in events], dtype=torch.bool),
            "cost": torch.tensor([event.cost or 0.0 for event in events], dtype=torch.float64),
        },
        "measurements": {
            "update": _column([each.update for each in measurements]),
            "loss": torch.tensor([each.loss for each in measurements], dtype=torch.float64),
            "units": _column([each.units for each in measurements]),
        },
        "names": [{"events": events, "before": dict(before)} for events, before in history.names],
        "samples": _samples_state(history.samples),
        "sampling": vars(history.sampling).copy(),
        "measuring": vars(history.measuring).copy(),
    }


def _samples_state(samples: Sequence[Sample]) -> dict[str, Any]:
    """Samples in columns; not a number is what is not known."""
    widths = dict.fromkeys(name for sample in samples for name in sample.importances)
    return {
        "step": _column([sample.step for sample in samples]),
        "events": _column([sample.events for sample in samples]),
        "loss": _numbers([sample.loss for sample in samples]),
        "cost": {name: _numbers([sample.cost.get(name) for sample in samples]) for name in COSTS},
        "widths": [{"name": name, **_width_state(samples, name)} for name in widths],
    }


def _width_state(samples: Sequence[Sample], name: str) -> dict[str, Tensor]:
    """The part of samples that is about one width: where it is found, and the importances of all in a row."""
    own = [(at, sample) for at, sample in enumerate(samples) if name in sample.importances]
    importances = [sample.importances[name] for _, sample in own]
    return {
        "at": _column([at for at, _ in own]),
        "units": _column([len(each) for each in importances]),
        "importances": torch.from_numpy(np.concatenate(importances)),
        "thresholds": _numbers([sample.thresholds[name] for _, sample in own]),
    }


def _column(numbers: list[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def _numbers(numbers: list[float | None]) -> Tensor:
    known = [math.nan if number is None else number for number in numbers]
    return torch.tensor(known, dtype=torch.float64)


def history_of(state: Fields) -> History:
    """The history that `history_state` has told."""
    told, shown = state.fields("events"), state.fields("measurements")
    widths = told.items("width")
    if not all(isinstance(each, str) for each in widths):
        raise told.wrong("width", "has what is no name of a width")
    each = (len(widths),)
    counts = told.array("counts", each, np.int64)
    if (counts < 0).any():
        raise told.wrong("counts", "has a number below 0")
    removed = np.split(told.array("removed", (int(counts.sum()),), np.int64), np.cumsum(counts)[:-1])
    step, added, size = (told.array(key, each, np.int64).tolist() for key in ("step", "added", "size"))
    measured, cost = told.array("measured", each, np.bool_), told.array("cost", each, np.float64).tolist()
    events = [
        Event(step[i], name, tuple(removed[i].tolist()), added[i], size[i], cost[i] if measured[i] else None)
        for i, name in enumerate(widths)
    ]
    update = shown.array("update", None, np.int64)
    if update.ndim != 1:
        raise shown.wrong("update", f"has {update.ndim} dimensions")
    loss, units = shown.array("loss", update.shape, np.float64), shown.array("units", update.shape, np.int64)
    rows = zip(update.tolist(), loss.tolist(), units.tolist(), strict=True)
    measurements = [Measurement(*row) for row in rows]
    names: list[tuple[int, Mapping[str, str | None]]] = []
    for entry in state.list_of_fields("names"):
        before = entry.fields("before")
        known = {name: None if before[name] is None else before.text(name) for name in before.value}
        names.append((entry.whole("events"), known))
    history = History(events, measurements, names)
    history.samples = _samples_of(state.fields("samples"), len(events))
    history.sampling, history.measuring = map(_spacing_of, map(state.fields, ("sampling", "measuring")))
    return history


def _spacing_of(state: Fields) -> Spacing:
    return Spacing(state.whole("every", 1), state.whole("seen"))


def _samples_of(state: Fields, events: int) -> list[Sample]:
    """The samples that `_samples_state` has told, of a history of so many events."""
    step = state.array("step", None, np.int64)
    if step.ndim != 1:
        raise state.wrong("step", f"has {step.ndim} dimensions")
    before, loss = state.array("events", step.shape, np.int64), state.array("loss", step.shape, np.float64)
    if ((before < 0) | (before > events)).any():
        raise state.wrong("events", f"has a number that is not one of {events} events")
    told = state.fields("cost")
    costs = {name: told.array(name, step.shape, np.float64).tolist() for name in COSTS}
    importances: list[dict[str, NDArray[np.float32]]] = [{} for _ in step]
    thresholds: list[dict[str, float]] = [{} for _ in step]
    for width in state.list_of_fields("widths"):
        for at, values, threshold in _width_of(width, len(step)):
            importances[at][width.text("name")], thresholds[at][width.text("name")] = values, threshold
    return [
        Sample(
            int(step[at]),
            int(before[at]),
            importances[at],
            thresholds[at],
            {name: column[at] for name, column in costs.items() if not math.isnan(column[at])},
            None if math.isnan(loss[at]) else float(loss[at]),
        )
        for at in range(len(step))
    ]


def _width_of(state: Fields, samples: int) -> Iterator[tuple[int, NDArray[np.float32], float]]:
    """Of each sample in which a width is found: its place, the importances and the threshold."""
    at = state.array("at", None, np.int64)
    if at.ndim != 1 or ((at < 0) | (at >= samples)).any():
        raise state.wrong("at", f"has what is no place among {samples} samples")
    units = state.array("units", at.shape, np.int64)
    if (units < 0).any():
        raise state.wrong("units", "has a number below 0")
    values = state.array("importances", (int(units.sum()),), np.float32)
    thresholds = state.array("thresholds", at.shape, np.float64)
    return zip(at.tolist(), np.split(values, np.cumsum(units)[:-1]), thresholds.tolist(), strict=True)
