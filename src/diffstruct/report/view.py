"""What a page is given: records as plain, thinned and packed values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffstruct.history import Event
from diffstruct.report.across import Curve, Quartiles, quartiles
from diffstruct.report.lives import lives_of, sizes_of
from diffstruct.report.pack import pack_counts, pack_numbers
from diffstruct.report.record import Record, WidthRecord
from diffstruct.report.thin import evenly, thin

POINTS = 8_000
"""Points of all loss curves of a page, at most; of each run 500 nevertheless."""
NUMBERS = 400_000
"""Importances in a page, at most: four bytes each."""
GRID = 400
"""Steps at which quartiles over runs are taken."""


def view(records: Sequence[Record]) -> dict[str, Any]:
    """All that the page's script reads; `records` has one or more."""
    points = max(500, POINTS // len(records))
    numbers = NUMBERS // len(records)
    return {
        "runs": [_run(record, points, numbers) for record in records],
        "across": _across(records) if len(records) > 1 else None,
    }


def _run(record: Record, points: int, numbers: int) -> dict[str, Any]:
    names = {width.name: index for index, width in enumerate(record.widths)}
    held = sum(len(sample.importances) for width in record.widths for sample in width.samples)
    share = min(1.0, numbers / max(held, 1))
    return {
        "title": record.title,
        "status": record.status,
        "step": record.step,
        "total": record.total_steps,
        "lossUnit": record.unit_of_loss,
        "importanceUnit": record.unit_of_importance,
        "floor": [[step, _finite(value)] for step, value in record.floor],
        "settings": [[name, _plain(value)] for name, value in record.settings.items()],
        "loss": _curve(record.loss, points),
        "widths": [_width(width, record.events, share) for width in record.widths],
        "events": _events(record.events, names),
        "cost": [
            {"name": name, "budget": _finite(record.budget.get(name)), **_curve(curve, points)}
            for name, curve in record.cost.items()
            if curve
        ],
    }


def _curve(curve: Sequence[tuple[int, float]], points: int) -> dict[str, Any]:
    values = np.array([value for _, value in curve], np.float64)
    kept = thin(values, points)
    steps = np.array([step for step, _ in curve], np.int64)
    return {"steps": pack_counts(steps[kept]), "values": pack_numbers(values[kept])}


def _width(width: WidthRecord, events: Sequence[Event], share: float) -> dict[str, Any]:
    lives = lives_of(width.name, width.start, events)
    sizes = np.array([len(sample.importances) for sample in width.samples], np.int64)
    samples = [width.samples[index] for index in evenly(sizes, int(share * sizes.sum()))]
    return {
        "name": width.name,
        "kind": width.kind,
        "start": width.start,
        "places": width.places,
        "came": width.came,
        "gone": width.gone,
        "born": pack_counts(lives.born),
        "died": pack_counts(lives.died),
        "samples": {
            "steps": pack_counts([sample.step for sample in samples]),
            "events": pack_counts([sample.events for sample in samples]),
            "thresholds": pack_numbers([sample.threshold for sample in samples]),
            "sizes": pack_counts([len(sample.importances) for sample in samples]),
            "values": pack_numbers([value for sample in samples for value in sample.importances]),
        },
    }


def _events(events: Sequence[Event], names: dict[str, int]) -> dict[str, Any]:
    return {
        "steps": pack_counts([event.step for event in events]),
        "widths": pack_counts([names[event.width] for event in events]),
        "added": pack_counts([event.added for event in events]),
        "sizes": pack_counts([event.size for event in events]),
        "costs": pack_numbers([event.cost for event in events]),
        "removed": pack_counts([len(event.removed) for event in events]),
        "units": pack_counts([unit for event in events for unit in event.removed]),
    }


def _across(records: Sequence[Record]) -> dict[str, Any]:
    ends = [record.step for record in records]
    steps = np.unique(np.linspace(0, max(ends), GRID).round().astype(np.int64))
    losses = [(record, _arrays(record.loss)) for record in records if record.loss]
    shared = set.intersection(*({width.name for width in record.widths} for record in records))
    names = [width.name for width in records[0].widths if width.name in shared]
    sizes: list[tuple[str | None, list[Curve]]] = [(None, [_units(record) for record in records])]
    sizes.extend((name, [_size(record, name) for record in records]) for name in names)
    return {
        "steps": pack_counts(steps),
        "runs": pack_counts([sum(step <= end for end in ends) for step in steps.tolist()]),
        "loss": _band(quartiles([curve for _, curve in losses], [record.step for record, _ in losses], steps))
        if losses
        else None,
        "sizes": [{"name": name, **_band(quartiles(curves, ends, steps))} for name, curves in sizes],
    }


def _arrays(curve: Sequence[tuple[int, float]]) -> Curve:
    return np.array([step for step, _ in curve], np.int64), np.array([value for _, value in curve])


def _size(record: Record, name: str) -> Curve:
    (width,) = (width for width in record.widths if width.name == name)
    steps, sizes = sizes_of(name, width.start, record.events)
    return steps, sizes.astype(np.float64)


def _units(record: Record) -> Curve:
    """Units of all widths together: what is there from the start, and what events, blocks and time change."""
    changes = [(width.came, width.start) for width in record.widths]
    last = {width.name: width.start for width in record.widths}
    for event in record.events:
        changes.append((event.step, event.size - last[event.width]))
        last[event.width] = event.size
    changes.extend((width.gone, -last[width.name]) for width in record.widths if width.gone is not None)
    changes.sort(key=lambda change: change[0])
    steps = np.array([step for step, _ in changes], np.int64)
    return steps, np.cumsum([change for _, change in changes]).astype(np.float64)


def _band(band: Quartiles) -> dict[str, Any]:
    return {name: pack_numbers(getattr(band, name)) for name in ("lower", "median", "upper")}


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _plain(value: str | int | float | None) -> str | int | float | None:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
