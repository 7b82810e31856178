"""The figure: what learned widths win of what fixed ones win, and how many parameters they leave."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib.figure import Figure
from report import HOW, counted, shares, sizes
from summary import Runs


def draw(runs: Runs) -> bytes:
    """Share won against parameters left, a point a cell, and the shares in order; a PNG."""
    cells = counted(runs)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for how, color in zip(HOW, ("#0072B2", "#D55E00", "#999999"), strict=True):
        share = shares(cells, how)
        if how != "again":
            left.scatter(sizes(cells, how), share.clip(0, 1.3), s=7, color=color, alpha=0.5, linewidth=0)
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
