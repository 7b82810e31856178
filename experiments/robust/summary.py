"""What tables and figure are made of: of each run what it won and how large it is, a line a cell. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from cells import Cell

Runs = Mapping[Cell, Mapping[str, Sequence[Mapping[str, Any]]]]
"""Of each cell the runs by how they were made, one a seed."""

DIGITS = 6
"""Of what was won; more than any table or figure shows."""


def as_text(runs: Runs) -> str:
    """JSON; of the cells that were drawn without the units of each width, which nothing shows."""
    lines = (json.dumps(_line(cell, some)) for cell, some in runs.items())
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _line(cell: Cell, some: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    usual = {field.name: field.default for field in fields(cell)}
    line: dict[str, Any] = {
        "cell": {name: value for name, value in asdict(cell).items() if value != usual[name]},
        "whole": next(record["whole"] for records in some.values() for record in records),
    }
    for how, records in some.items():
        won = [None if r["won"] is None else float(f"{r['won']:.{DIGITS}g}") for r in records]
        line[how] = {"won": won, "parameters": [r["parameters"] for r in records]}
        if cell.study != "drawn":
            line[how]["units"] = [r["units"] for r in records]
    return line


def runs_of(text: str) -> dict[Cell, dict[str, list[dict[str, Any]]]]:
    """What `as_text` has written."""
    runs: dict[Cell, dict[str, list[dict[str, Any]]]] = {}
    for line in json.loads(text):
        cell, whole = Cell(**line.pop("cell")), line.pop("whole")
        runs[cell] = {
            how: [
                {"whole": whole, **dict(zip(kept, values, strict=True))}
                for values in zip(*kept.values(), strict=True)
            ]
            for how, kept in line.items()
        }
    return runs
