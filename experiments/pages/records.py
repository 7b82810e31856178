"""Records of runs as files: compressed JSON, with the digits that a page shows."""

from __future__ import annotations

import json
import lzma
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from diffstruct.history import Event
from diffstruct.report import Record, WidthRecord, WidthSample

DIGITS, SAMPLES = 4, 200
"""Of each importance, and at most so many samples of a width: more than can be told apart in a picture."""


def save(record: Record, path: Path) -> None:
    """Write a record, without the samples and digits that no picture shows."""
    widths = [replace(width, samples=thinned(width.samples)) for width in record.widths]
    fields = asdict(replace(record, widths=widths))
    fields["loss"] = [[step, _short(loss)] for step, loss in record.loss]
    path.write_bytes(lzma.compress(json.dumps(fields).encode(), preset=9))


def thinned(samples: Any) -> list[WidthSample]:
    """Evenly chosen samples, the last one among them, with short numbers."""
    every = -(-len(samples) // SAMPLES)
    kept = [*reversed(samples[::-1][::every])]
    return [
        each._replace(
            importances=[_short(value) for value in each.importances],
            threshold=None if each.threshold is None else _short(each.threshold),
        )
        for each in kept
    ]


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def load(path: Path) -> Record:
    """The record that a file holds."""
    fields = json.loads(lzma.decompress(path.read_bytes()))
    widths = [
        WidthRecord(**{**width, "samples": [WidthSample(*sample) for sample in width["samples"]]})
        for width in fields["widths"]
    ]
    events = [Event(**{**event, "removed": tuple(event["removed"])}) for event in fields["events"]]
    return Record(**{**fields, "widths": widths, "events": events})
