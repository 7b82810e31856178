"""The figures: loss and units over time, and what turning each knob does, from plain numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffstruct.paper.tasks import SEQUENCE, easy, hard

if TYPE_CHECKING:
    from grid import Setting

BLUE, VERMILION = "#0072B2", "#D55E00"
SCORES = {"hard": ("loss", "paper", "hard"), "digits": ("accuracy", "points", "digits")}
"""Of each task in which knobs are turned: what is measured, and study and name of the default."""

DIGITS = 5
Runs = Sequence[Mapping[str, Any]]
Data = Mapping[str, Mapping[str, Any]]


def data_of(results: Mapping[Setting, Runs]) -> dict[str, dict[str, Any]]:
    """What the figures draw: lower quartile, median and upper quartile of everything, as JSON can hold it.

    Returns:
        `"over time"`: by task `"loss"` and `"units"`, at every thousandth update.
        `"knobs"`: by task, by knob, by what its default was multiplied by, the score and `"units"`.
    """
    over_time = {
        setting.name: {
            what: _quartiles([run["curve"][row] for run in runs])
            for row, what in enumerate(("loss", "units"))
        }
        for setting, runs in results.items()
        if setting.study == "paper"
    }
    return {
        "over time": over_time if len(over_time) == 3 else {},
        "knobs": {task: knobs for task in SCORES if (knobs := _knobs(results, task))},
    }


def _knobs(results: Mapping[Setting, Runs], task: str) -> dict[str, dict[str, dict[str, Any]]]:
    score, study, name = SCORES[task]
    default = next((runs for s, runs in results.items() if (s.study, s.name) == (study, name)), None)
    turned: dict[str, dict[float, Runs]] = {}
    for setting, runs in results.items():
        if setting.study == f"knobs: {task}":
            turned.setdefault(setting.name.split(" x ")[0], {})[setting.order] = runs
    for some in turned.values():
        if default is not None:  # of the same seeds, for these differ from each other
            some[1.0] = default[: max(map(len, some.values()))]
    return {
        knob: {
            f"{factor:g}": {key: _quartiles([run[key] for run in some[factor]]) for key in (score, "units")}
            for factor in sorted(some)
        }
        for knob, some in turned.items()
    }


def _quartiles(values: Sequence[Any]) -> Any:
    quartiles = np.quantile(np.array(values, float), (0.25, 0.5, 0.75), axis=0)
    return np.round(quartiles, DIGITS).tolist()


def as_text(data: Data) -> str:
    """JSON, a line a curve or knob."""
    parts = [
        f"{json.dumps(kind)}: {{\n"
        + ",\n".join(
            f"{json.dumps(task)}: {{\n"
            + ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in each.items())
            + "\n}"
            for task, each in tasks.items()
        )
        + "\n}"
        for kind, tasks in data.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def draw(data: Data) -> dict[str, bytes]:
    """PNGs by the names of their files; none of what there is no data of."""
    makers = {"over time": ("paper.png", _over_time), "knobs": ("knobs.png", _draw_knobs)}
    return {name: make(data[kind]) for kind, (name, make) in makers.items() if data[kind]}


def _over_time(tasks: Mapping[str, Any]) -> bytes:
    """Median and quartiles of loss and units, one column a task."""
    figure = Figure(figsize=(3.6 * len(tasks), 5), layout="constrained")
    panels = figure.subplots(2, len(tasks), sharex="col", squeeze=False)
    for column, (task, curves) in enumerate(tasks.items()):
        for row, what in enumerate(("loss", "units")):
            axes = panels[row, column]
            _band(axes, curves[what], BLUE)
            shown = "loss, nats per 40 characters" if what == "loss" else what
            axes.set(ylabel=shown if column == 0 else None, title=task if row == 0 else None)
            if row == 0:
                axes.axhline(
                    SEQUENCE * (easy() if task == "easy" else hard()).floor, color="gray", lw=0.8, ls=":"
                )
                axes.set_ylim(8.5, 17)
            else:
                axes.set(ylim=(0, None), xlabel="updates")
    return _png(figure)


def _draw_knobs(tasks: Mapping[str, Any]) -> bytes:
    """Score and units as each knob is turned, a column a knob."""
    names = [*dict.fromkeys(knob for knobs in tasks.values() for knob in knobs)]
    figure = Figure(figsize=(2.2 * len(names), 4 * len(tasks)), layout="constrained")
    panels = figure.subplots(2 * len(tasks), len(names), sharey="row", squeeze=False)
    for pair, (task, knobs) in enumerate(tasks.items()):
        for column, knob in enumerate(names):
            for row, key in enumerate((SCORES[task][0], "units")):
                axes = panels[2 * pair + row, column]
                turned = knobs.get(knob, {})
                factors = [float(factor) for factor in turned]
                if factors:
                    low, median, high = np.array([each[key] for each in turned.values()]).T
                    color = (BLUE, VERMILION)[row]
                    axes.fill_between(factors, low, high, color=color, alpha=0.2, linewidth=0)
                    axes.plot(factors, median, "o-", color=color, markersize=3)
                axes.axvline(1, color="gray", lw=0.6, ls=":")
                axes.set_xscale("log")
                axes.spines[["top", "right"]].set_visible(False)
                if column == 0:
                    axes.set_ylabel(f"{task}: {key}")
                if pair + row == 0:
                    axes.set_title(knob)
                if pair + row == len(tasks):
                    axes.set_xlabel("times its default")
    return _png(figure)


def _band(axes: Axes, quartiles: Any, color: str) -> None:
    low, median, high = np.array(quartiles)
    x = 1000 * np.arange(1, len(median) + 1)
    axes.plot(x, median, color=color)
    axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    axes.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure) -> bytes:
    picture = BytesIO()
    figure.savefig(picture, dpi=110, format="png", metadata={"Software": None})
    return picture.getvalue()
