"""The paper's figures: medians and inter-quartile bands over many runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffstruct.paper.figures.levels import BLUE, GREEN, ORANGE, PURPLE, VERMILION, draw_levels, frame, limit
from diffstruct.paper.tasks import Phase

_COLORS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE)


@dataclass(frozen=True, eq=False)
class Band:
    """The runs of one setting: quartiles over seeds, point by point.

    Args:
        label: shown in the legend.
        updates: steps, `[points]`, in order.
        loss: `[3, points]`, lower quartile, median and upper quartile, in nats per sequence.
        units: `[3, points]`, the same of the units.
    """

    label: str
    updates: NDArray[np.int64]
    loss: NDArray[np.float64]
    units: NDArray[np.float64]


def draw(title: str, bands: Sequence[Band], phases: Sequence[Phase], units: bool = True) -> Figure:
    """Draw the bands' loss beside floor and plateau and, if wanted, their units.

    Args:
        title: its heading.
        bands: at least one, at most five; the first is emphasised.
        phases: the schedule; gives floors, plateaus and the switches of task.
        units: whether to draw them, below the loss.
    """
    end = max(int(band.updates[-1]) for band in bands)
    figure, loss, below = frame(title, phases, end, units)
    for index, (band, color) in enumerate(zip(bands, _COLORS, strict=False)):
        first = index == 0  # lies above the others, and is drawn bolder
        label = "loss" if len(bands) == 1 else band.label
        _draw_band(loss, band.updates, band.loss, color, label, first)
        if below is not None:
            _draw_band(below, band.updates, band.units, color, band.label, first)
    draw_levels(loss, phases, end)
    limit(loss, phases, [value for band in bands for value in band.loss[2, band.updates >= end / 25]])
    # Above the axes: inside, it would cover the bands of one figure or another.
    loss.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, ncols=4, fontsize="small")
    if below is not None:
        below.set_ylim(bottom=0)
    return figure


def _draw_band(
    axes: Axes, updates: NDArray[np.int64], values: NDArray[np.float64], color: str, label: str, first: bool
) -> None:
    low, median, high = values
    alpha, width, order = (0.22, 2.0, 3) if first else (0.12, 1.2, 2)
    axes.fill_between(updates, low, high, color=color, alpha=alpha, linewidth=0, zorder=order - 1.5)
    axes.plot(updates, median, color=color, linewidth=width, label=label, zorder=order)


def picture(figure: Figure, form: str) -> bytes:
    """`figure` as `"png"` or `"svg"`; the same figure gives the same bytes."""
    content = BytesIO()
    # An SVG holds the time and random names unless it is told otherwise.
    with matplotlib.rc_context({"svg.hashsalt": "diffstruct"}):
        figure.savefig(content, dpi=150, format=form, metadata={"Date": None} if form == "svg" else None)
    return content.getvalue()
