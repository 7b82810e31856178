"""The figure: score against parameters, learned beside fixed, and how the learned units grew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from runs import Job, Run
from summary import Summary
from task import Study

BLUE, VERMILION = "#0072B2", "#D55E00"
_PALETTE = (VERMILION, "#CC79A7", "#E69F00", "#009E73", "#56B4E9", "#000000")


def draw(studies: Mapping[str, Study], summaries: Mapping[str, Summary], results: Mapping[Job, Run]) -> bytes:
    """Two panels a study, one above the other; a PNG."""
    figure = Figure(figsize=(3.4 * len(summaries), 6), layout="constrained")
    panels = figure.subplots(2, len(summaries), squeeze=False)
    for column, (name, summary) in enumerate(summaries.items()):
        learned = [run for job, run in results.items() if job.study == name and job.size is None]
        _scores(panels[0, column], studies[name], summary)
        _growth(panels[1, column], learned)
    picture = BytesIO()
    figure.savefig(picture, dpi=130, format="png", metadata={"Software": None})
    return picture.getvalue()


def _scores(axes: Axes, study: Study, summary: Summary) -> None:
    metric = next(iter(study.metrics))
    rows = summary["rows"]
    fixed = [row for name, row in rows.items() if name != "learned"]
    _points(axes, fixed, metric, "fixed", color=BLUE, marker="o", linestyle="-")
    _points(axes, [rows["learned"]], metric, "learned", color=VERMILION, marker="*", markersize=13, zorder=3)
    axes.set(title=study.name, xscale="log", yscale="log", xlabel="parameters", ylabel=metric)
    axes.xaxis.set_minor_formatter("")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.tick_params(axis="y", which="minor", labelsize="x-small")
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)


def _points(
    axes: Axes, rows: Sequence[Mapping[str, Sequence[float]]], metric: str, label: str, **style: object
) -> None:
    x, y = (np.array([row[what] for row in rows], float).T for what in ("parameters", metric))
    style = {"linestyle": "none", "elinewidth": 1, **style}
    axes.errorbar(x[0], y[0], yerr=_bars(y), xerr=_bars(x), label=label, **style)  # type: ignore[arg-type]


def _bars(values: np.ndarray) -> np.ndarray:
    median, low, high = values
    return np.stack([median - low, high - median])


def _growth(axes: Axes, learned: Sequence[Run]) -> None:
    """Median and quartiles over seeds of each width's units, by update."""
    longest = max((run["growth"] for run in learned), key=len)
    updates = [update for update, _ in longest]
    units = np.empty((len(learned), len(updates), len(learned[0]["widths"])))
    for run, own in zip(learned, units, strict=True):  # a run that was stopped stays as it was
        own[:] = run["growth"][-1][1]
        own[: len(run["growth"])] = [sizes for _, sizes in run["growth"]]
    low, median, high = np.quantile(units, (0.25, 0.5, 0.75), axis=0)
    for index, name in enumerate(learned[0]["widths"]):
        color = _PALETTE[index % len(_PALETTE)]
        axes.plot(updates, median[:, index], color=color, label=name)
        axes.fill_between(updates, low[:, index], high[:, index], color=color, alpha=0.2, linewidth=0)
    axes.set(xlabel="updates", ylabel="units", ylim=(0, None))
    axes.legend(frameon=False, fontsize="x-small")
    axes.spines[["top", "right"]].set_visible(False)
