"""The figures: loss and units over time, and what turning each knob does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from grid import KNOBS, Setting
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffstruct.paper.tasks import SEQUENCE, easy, hard

BLUE, VERMILION = "#0072B2", "#D55E00"
Runs = Sequence[Mapping[str, Any]]


def over_time(runs: Mapping[str, Runs]) -> bytes:
    """Median and quartiles of loss and units, one column a task; a PNG."""
    figure = Figure(figsize=(3.6 * len(runs), 5), layout="constrained")
    panels = figure.subplots(2, len(runs), sharex="col", squeeze=False)
    for column, (task, some) in enumerate(runs.items()):
        for row, (index, what) in enumerate(((0, "loss, nats per 40 characters"), (1, "units"))):
            axes = panels[row, column]
            curves = np.array([run["curve"][index] for run in some], float)
            _band(axes, 1000 * np.arange(1, curves.shape[1] + 1), curves, BLUE)
            axes.set(ylabel=what if column == 0 else None, title=task if row == 0 else None)
            if row == 0:
                axes.axhline(
                    SEQUENCE * (easy() if task == "easy" else hard()).floor, color="gray", lw=0.8, ls=":"
                )
                axes.set_ylim(8.5, 17)
            else:
                axes.set(ylim=(0, None), xlabel="updates")
    return _png(figure)


def knobs(results: Mapping[Setting, Runs]) -> bytes:
    """Score and units as each knob is turned, a column a knob; a PNG."""
    kinds = {"hard": ("loss", "paper", "hard"), "digits": ("accuracy", "points", "digits")}
    figure = Figure(figsize=(2.2 * len(KNOBS), 8), layout="constrained")
    panels = figure.subplots(4, len(KNOBS), sharey="row", squeeze=False)
    for pair, (task, (score, study, name)) in enumerate(kinds.items()):
        default = next((runs for s, runs in results.items() if (s.study, s.name) == (study, name)), None)
        for column, knob in enumerate(KNOBS):
            turned = {
                s.order: runs
                for s, runs in results.items()
                if s.study == f"knobs: {task}" and s.name.startswith(f"{knob} x")
            }
            if default is not None and turned:  # of the same seeds, for these differ from each other
                turned[1.0] = default[: max(map(len, turned.values()))]
            for row, key in enumerate((score, "units")):
                axes = panels[2 * pair + row, column]
                factors = sorted(turned)
                values = [np.quantile([run[key] for run in turned[f]], (0.25, 0.5, 0.75)) for f in factors]
                if values:
                    low, median, high = np.array(values).T
                    axes.fill_between(
                        factors, low, high, color=(BLUE, VERMILION)[row], alpha=0.2, linewidth=0
                    )
                    axes.plot(factors, median, "o-", color=(BLUE, VERMILION)[row], markersize=3)
                axes.axvline(1, color="gray", lw=0.6, ls=":")
                axes.set_xscale("log")
                axes.spines[["top", "right"]].set_visible(False)
                if column == 0:
                    axes.set_ylabel(f"{task}: {key}")
                if pair + row == 0:
                    axes.set_title(knob)
                if pair + row == 2:
                    axes.set_xlabel("times its default")
    return _png(figure)


def _band(axes: Axes, x: np.ndarray, curves: np.ndarray, color: str) -> None:
    low, median, high = np.quantile(curves, (0.25, 0.5, 0.75), axis=0)
    axes.plot(x, median, color=color)
    axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    axes.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure) -> bytes:
    picture = BytesIO()
    figure.savefig(picture, dpi=110, format="png", metadata={"Software": None})
    return picture.getvalue()
