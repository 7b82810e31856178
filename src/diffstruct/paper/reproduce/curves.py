"""What the figures draw: quartiles over the runs of a setting, as JSON can hold them, and back. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from diffstruct.paper.figures.bands import Band, draw, picture
from diffstruct.paper.reproduce.runs import Result
from diffstruct.paper.reproduce.settings import Job, Panel, Setting, phases, points
from diffstruct.paper.reproduce.summary import Groups

Curves = Mapping[str, Mapping[str, Any]]
"""By the name of each setting its number of runs and their quartiles."""

_TITLES = {
    "easy": "Easy",
    "hard": "Hard",
    "fixed": "Hard, learned and fixed sizes",
    "transition": "Easy, then hard, then easy",
}
_QUARTILES = (0.25, 0.5, 0.75)
_DIGITS = 6
"""More than a picture shows."""


def curves_of(panels: Iterable[Panel], groups: Groups) -> dict[str, dict[str, Any]]:
    """The quartiles of each setting of the panels of which runs are finished, point by point."""
    settings = dict.fromkeys(setting for panel in panels for setting in panel.settings)
    return {setting.name: _curve(groups[setting]) for setting in settings if groups.get(setting)}


def _curve(results: Sequence[Result]) -> dict[str, Any]:
    losses = [[measurement.loss for measurement in result.curve] for result in results]
    units = [[measurement.units for measurement in result.curve] for result in results]
    return {
        "seeds": len(results),
        "cycles": results[0].job.cycles,
        "loss": _quartiles(losses),
        "units": _quartiles(units),
    }


def _quartiles(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    quartiles = np.quantile(np.array(rows, float), _QUARTILES, axis=0)
    return [[float(f"{value:.{_DIGITS}g}") for value in each] for each in quartiles]


def as_text(curves: Curves) -> str:
    """JSON, a line a setting."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(curve)}" for name, curve in curves.items())
    return f"{{\n{lines}\n}}\n"


def draw_panel(panel: Panel, curves: Curves, forms: Sequence[str] = ("png", "svg")) -> dict[str, bytes]:
    """The figure of a panel in each form; none if nothing of it is finished."""
    shown = [setting for setting in panel.settings if setting.name in curves]
    if not shown:
        return {}
    seeds = sorted({curves[setting.name]["seeds"] for setting in shown})
    runs = f"{seeds[0]} run{'s' if seeds[-1] > 1 else ''}"
    if len(seeds) > 1:
        runs = f"{seeds[0]} to {seeds[-1]} runs"
    title = f"{_TITLES[panel.figure]}, revision {panel.revision}: median and quartiles of {runs}"
    bands = [band(setting, curves[setting.name]) for setting in shown]
    read = phases(Job(shown[0], 0, curves[shown[0].name]["cycles"]))
    figure = draw(title, bands, read, units=panel.figure != "fixed")
    return {form: picture(figure, form) for form in forms}


def band(setting: Setting, curve: Mapping[str, Any]) -> Band:
    """A curve as it is drawn."""
    updates = np.array(points(Job(setting, 0, curve["cycles"])))
    return Band(setting.label, updates, np.array(curve["loss"]), np.array(curve["units"]))
