"""The tables: in how many cells learned widths win what fixed ones win, and how large they are. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from summary import Runs

LEARNS = 0.05
"""A cell counts if the fixed widths win more than that of all that could be won."""

HOW = {
    "own": "learned, from its own sizes",
    "one": "learned, from one unit",
    "again": "fixed, batches in another order",
}


def won(records: Sequence[Mapping[str, Any]]) -> float:
    """What runs have won, the median over seeds; what diverged has won nothing."""
    return float(np.median([record["won"] or 0.0 for record in records]))


def size(records: Sequence[Mapping[str, Any]]) -> float:
    """Parameters over those of the fixed widths, the median over seeds."""
    return float(np.median([record["parameters"] / record["whole"] for record in records]))


def counted(runs: Runs) -> Runs:
    """The cells in which the fixed widths learn, and all runs were made."""
    return {
        cell: some
        for cell, some in runs.items()
        if cell.study == "drawn" and {"fixed", *HOW} <= {*some} and won(some["fixed"]) > LEARNS
    }


def shares(runs: Runs, how: str) -> np.ndarray:
    """What runs made in a way win of what the fixed widths win, cell by cell."""
    return np.array([won(each[how]) / won(each["fixed"]) for each in runs.values()])


def sizes(runs: Runs, how: str) -> np.ndarray:
    """Parameters over those of the fixed widths, cell by cell."""
    return np.array([size(each[how]) for each in runs.values()])


def report(runs: Runs) -> Iterator[str]:
    """The page, in parts."""
    cells = counted(runs)
    drawn = sum(cell.study == "drawn" for cell in runs)
    yield "# Wherever a fixed width learns\n"
    seeds = max((len(each["fixed"]) for each in cells.values()), default=0)
    yield "Written by `python experiments/robust`; one default everywhere.\n"
    yield (
        f"{drawn} cells were drawn; in {len(cells)} of them the fixed widths win more than {LEARNS:.0%} of "
        "what could be won on test data over a constant (labels right, variance explained). Those are "
        f"counted. Medians are over {seeds} seeds; the last row says what chance does: the same fixed "
        "widths, with their batches in another order.\n"
    )
    rows = []
    for how, what in HOW.items():
        share, left = shares(cells, how), sizes(cells, how)
        low, middle, high = np.quantile(left, (0.1, 0.5, 0.9))
        rows.append(
            [
                what,
                f"{(share >= 0.95).mean():.1%}",
                f"{(share >= 0.85).mean():.1%}",
                f"{share.min():.0%}",
                f"{np.quantile(share, 0.01):.0%}",
                f"{np.median(share):.1%}",
                f"{middle:.0%} ({low:.0%}–{high:.0%})",
                str(int(((left > 1) & (share < 1)).sum())),
            ]
        )
    head = ["", "win 95% or more", "85% or more", "worst cell", "worst in a hundred", "median"]
    yield table([*head, "parameters left, median (deciles)", "larger and no better"], rows)
    yield "![Shares of what the fixed widths win](figure.png)\n"
    yield "## The worst cells, from their own sizes\n"
    worst = sorted(zip(shares(cells, "own"), cells.items(), strict=True), key=lambda each: each[0])[:12]
    rows = [
        [
            str(cell),
            *(f"{won(some[how]):.3f}" for how in ("fixed", "again", "own")),
            f"{size(some['own']):.0%}",
        ]
        for _, (cell, some) in worst
    ]
    yield table(["cell", "fixed wins", "with other batches", "learned wins", "parameters left"], rows)
    for study in dict.fromkeys(cell.study for cell in runs if cell.study != "drawn"):
        some = {
            cell: each for cell, each in runs.items() if cell.study == study and {"fixed", *HOW} <= {*each}
        }
        if some:
            count = max(len(each["fixed"]) for each in some.values())
            yield f"## {study.capitalize()}\n"
            yield f"Medians over {count} seeds.\n"
            yield table(
                ["", "fixed wins", "learned wins", "units", "from one unit", "units"],
                [
                    [
                        str(c),
                        *(f"{won(r[how]):.3f}" for how in ("fixed", "own")),
                        units(r["own"]),
                        f"{won(r['one']):.3f}",
                        units(r["one"]),
                    ]
                    for c, r in some.items()
                ],
            )
    yield "## By what is turned, from their own sizes\n"
    rows = []
    for name in ("data", "depth", "width", "activation", "kind", "optimizer", "steps", "reduction"):
        for value in sorted({getattr(cell, name) for cell in cells}, key=lambda v: (isinstance(v, str), v)):
            part = {cell: each for cell, each in cells.items() if getattr(cell, name) == value}
            share = shares(part, "own")
            rows.append(
                [
                    f"{name} {value}",
                    str(len(part)),
                    f"{(share >= 0.95).mean():.0%}",
                    f"{share.min():.0%}",
                    f"{np.median(sizes(part, 'own')):.0%}",
                ]
            )
    yield table(["", "cells", "win 95% or more", "worst", "parameters left"], rows)


def units(records: Sequence[Mapping[str, Any]]) -> str:
    """The units of each width, medians over the seeds that ended."""
    ended = [record["units"] for record in records if record["units"]]
    return ", ".join(f"{np.median(each):g}" for each in zip(*ended, strict=True))


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines) + "\n"
