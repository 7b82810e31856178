"""The figure: bits per byte against parameters, learned shapes beside uniform ones."""

from __future__ import annotations

from io import BytesIO
from statistics import median

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from report import Summary, best_uniform, bits

BLUE, STYLES = "#0072B2", (("#D55E00", "o"), ("#009E73", "s"))


def draw(summary: Summary) -> bytes:
    """A PNG."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    budgets = [int(budget) for budget in summary]
    for budget, ways in zip(budgets, summary.values(), strict=True):
        middles = [median(bits(runs)) for runs in ways["uniform"].values()]
        axes.plot([budget] * len(middles), middles, "_", color=BLUE, alpha=0.5, markersize=9)
    best = [median(bits(ways["uniform"][best_uniform(ways)])) for ways in summary.values()]
    axes.plot(budgets, best, color=BLUE, label="uniform shapes; the line is the best of each budget")
    learned = dict.fromkeys(name for ways in summary.values() for name in ways["learned"])
    for index, (name, (color, marker)) in enumerate(zip(learned, STYLES, strict=False)):
        rows = [bits(ways["learned"][name]) for ways in summary.values() if name in ways["learned"]]
        middle = np.array([median(row) for row in rows])
        bars = [middle - [min(row) for row in rows], [max(row) for row in rows] - middle]
        moved = [budget * (1 + 0.02 * (index * 2 - 1)) for budget in budgets]  # side by side
        label = f"learned, {name}; from best to worst seed"
        axes.errorbar(moved, middle, bars, color=color, marker=marker, label=label, capsize=3)
    axes.set(xscale="log", xlabel="parameters", ylabel="bits per byte")
    axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    picture = BytesIO()
    figure.savefig(picture, dpi=130, format="png", metadata={"Software": None})
    return picture.getvalue()
