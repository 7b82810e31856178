"""Table and figure: in how many cells learned widths win what fixed ones win, and how large they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

import numpy as np
from cells import Cell
from matplotlib.figure import Figure

Runs = Mapping[Cell, Mapping[str, Mapping[str, Any]]]
"""Of each cell the runs by how they were made."""

LEARNS = 0.05
"""A cell counts if the fixed widths win more than that of all that could be won."""

HOW = {"own": "from its own sizes", "one": "from one unit"}


def counted(runs: Runs) -> dict[Cell, Mapping[str, Mapping[str, Any]]]:
    """The cells in which the fixed widths learn, and all runs were made."""
    return {
        cell: some
        for cell, some in runs.items()
        if cell.study == "drawn" and {"fixed", *HOW} <= {*some} and (some["fixed"]["won"] or 0) > LEARNS
    }


def shares(runs: Runs, how: str) -> np.ndarray:
    """What the learned widths win of what the fixed ones win, cell by cell."""
    return np.array([(each[how]["won"] or 0) / each["fixed"]["won"] for each in runs.values()])


def sizes(runs: Runs, how: str) -> np.ndarray:
    """Parameters over those of the fixed widths, cell by cell."""
    return np.array([each[how]["parameters"] / each[how]["whole"] for each in runs.values()])


def report(runs: Runs) -> Iterator[str]:
    """The page, in parts."""
    cells = counted(runs)
    drawn = sum(cell.study == "drawn" for cell in runs)
    yield "# Wherever a fixed width learns\n"
    yield "Written by `python experiments/robust`, one seed a cell, one default everywhere.\n"
    yield (
        f"{drawn} cells were drawn; in {len(cells)} of them the fixed widths win more than {LEARNS:.0%} of "
        "what could be won on test data over a constant (labels right, variance explained). Those are "
        "counted.\n"
    )
    rows = []
    for how, what in HOW.items():
        share, size = shares(cells, how), sizes(cells, how)
        low, middle, high = np.quantile(size, (0.1, 0.5, 0.9))
        rows.append(
            [
                what,
                f"{(share >= 0.95).mean():.1%}",
                f"{(share >= 0.85).mean():.1%}",
                f"{share.min():.0%}",
                f"{np.quantile(share, 0.01):.0%}",
                f"{np.median(share):.1%}",
                f"{middle:.0%} ({low:.0%}–{high:.0%})",
                str(int(((size > 1) & (share < 1)).sum())),
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
            f"{some['fixed']['won']:.3f}",
            f"{some['own']['won'] or 0:.3f}",
            f"{some['own']['parameters'] / some['own']['whole']:.0%}",
        ]
        for _, (cell, some) in worst
    ]
    yield table(["cell", "fixed wins", "learned wins", "parameters left"], rows)
    for study in dict.fromkeys(cell.study for cell in runs if cell.study != "drawn"):
        some = {
            cell: each for cell, each in runs.items() if cell.study == study and {"fixed", *HOW} <= {*each}
        }
        if some:
            yield f"## {study.capitalize()}\n"
            yield table(
                ["", "fixed wins", "learned wins", "units", "from one unit", "units"],
                [
                    [
                        str(c),
                        *(f"{r[how]['won'] or 0:.3f}" for how in ("fixed", "own")),
                        ", ".join(map(str, r["own"]["units"])),
                        f"{r['one']['won'] or 0:.3f}",
                        ", ".join(map(str, r["one"]["units"])),
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


def draw(runs: Runs) -> bytes:
    """Share won against parameters left, a point a cell, and the shares in order; a PNG."""
    cells = counted(runs)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for how, color in zip(HOW, ("#0072B2", "#D55E00"), strict=True):
        share, size = shares(cells, how), sizes(cells, how)
        left.scatter(size, share.clip(0, 1.3), s=7, color=color, alpha=0.5, label=HOW[how], linewidth=0)
        right.plot(np.linspace(0, 1, len(share)), np.sort(share).clip(0, 1.3), color=color, label=HOW[how])
    for axes in (left, right):
        axes.axhline(0.95, color="gray", lw=0.8, ls=":")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(0, 1.32)
    left.set(xscale="log", xlabel="parameters left", ylabel="won, of what the fixed widths win")
    right.set(xlabel="cells, in order")
    right.legend(frameon=False)
    picture = BytesIO()
    figure.savefig(picture, dpi=130, format="png", metadata={"Software": None})
    return picture.getvalue()


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines) + "\n"
