"""The figure: error against parameters, learned and pruned beside uniform, a panel a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from summary import Summary

BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
COLUMNS = 3


def draw(summaries: Mapping[str, Summary]) -> bytes:
    """A PNG."""
    columns = min(COLUMNS, len(summaries))
    rows = -(-len(summaries) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.9 * rows + 0.4), layout="constrained")
    panels = [*figure.subplots(rows, columns, squeeze=False).flat]
    known: dict[str, Any] = {}
    for axes, (name, summary) in zip(panels, summaries.items(), strict=False):
        _panel(axes, name, summary)
        known |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    for axes in panels[len(summaries) :]:
        axes.set_axis_off()
    figure.legend(known.values(), known.keys(), loc="outside upper center", ncols=len(known), frameon=False)
    picture = BytesIO()
    figure.savefig(picture, dpi=130, format="png", metadata={"Software": None})
    return picture.getvalue()


def _panel(axes: Axes, name: str, summary: Summary) -> None:
    uniform, learned = [*summary["uniform"].values()], [*summary["learned"].values()]
    parameters = [row["parameters"][0] for row in uniform]
    middle, low, high = np.array([row["score"] for row in uniform]).T
    axes.fill_between(parameters, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(parameters, middle, color=BLUE, marker=".", label="uniform")
    pruned = [row["pruned"] for row in learned if row["pruned"]]
    budgets = [row for row in learned if row["share"] is not None]
    price = [row for row in learned if row["share"] is None]
    _points(axes, pruned, "Torch-Pruning", color=GREEN, marker="s", markersize=5, markerfacecolor="white")
    _points(axes, budgets, "learned, with a budget", color=VERMILION, marker="o", markersize=5)
    _points(axes, price, "learned, default price", color="black", marker="*", markersize=9)
    axes.set(xscale="log", yscale="log", xlabel=summary["measure"], ylabel=summary["metric"])
    axes.set_title(name, fontsize="medium")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="y", which="both", labelsize="x-small")
    axes.spines[["top", "right"]].set_visible(False)


def _points(axes: Axes, rows: Sequence[Mapping[str, Any]], label: str, **style: Any) -> None:
    """Medians, with quartiles of the error."""
    if rows:
        middle, low, high = np.array([row["score"] for row in rows]).T
        bars = np.stack([middle - low, high - middle])
        parameters = [row["parameters"][0] for row in rows]
        axes.errorbar(
            parameters, middle, yerr=bars, label=label, linestyle="none", elinewidth=1, zorder=3, **style
        )
