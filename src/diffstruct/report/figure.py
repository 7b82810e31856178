"""The picture of a run: loss and units over time, in the manner of the paper's figures."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffstruct.history import Measurement
from diffstruct.tasks import SEQUENCE, Phase

LOSS, UNITS, FLOOR, PLATEAU = "#1f5fa8", "#c0392b", "#2e7d32", "#8a6d1b"


def draw_run(title: str, measurements: Sequence[Measurement], phases: Sequence[Phase]) -> bytes:
    """Draw a run's loss (nats per sequence) beside its floor, and its units; return a PNG.

    Args:
        title: its heading.
        measurements: at least one, in order.
        phases: what was read when; gives floors, plateaus and the switches of task.
    """
    updates = [measurement.update for measurement in measurements]
    end = max(updates[-1], 1)
    figure = Figure(figsize=(7, 5.2), layout="constrained")
    loss, units = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    figure.suptitle(title)

    loss.plot(updates, [m.loss for m in measurements], color=LOSS, label="loss (smoothed)")
    units.step(updates, [m.units for m in measurements], where="post", color=UNITS)
    _draw_levels(loss, phases, end)
    # The first updates fall from the loss of a network that knows nothing: let them leave the picture.
    settled = [m.loss for m in measurements if m.update >= end / 50] or [measurements[-1].loss]
    floors = [SEQUENCE * p.task.floor for p in phases if p.task.floor is not None]
    bottom, top = min([*floors, *settled]), max(settled)
    margin = 0.06 * max(top - bottom, 1.0)
    loss.set_ylim(bottom - margin, top + margin)
    loss.set_ylabel(f"nats per {SEQUENCE} characters")
    loss.legend(loc="upper right", frameon=False, ncols=3, fontsize="small")
    units.set_ylabel("units")
    units.set_ylim(bottom=0)
    units.set_xlabel("updates")
    units.set_xlim(0, end)
    units.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for axes in (loss, units):
        axes.spines[["top", "right"]].set_visible(False)
        for phase in phases[1:]:
            axes.axvline(phase.start, color="0.6", linewidth=0.8, linestyle=":")
    picture = BytesIO()
    figure.savefig(picture, dpi=150, format="png")
    return picture.getvalue()


def _draw_levels(axes: Axes, phases: Sequence[Phase], end: int) -> None:
    """Floors and plateaus, each over the updates of its phase and named once in the legend."""
    named: set[str] = set()
    stops = [*(phase.start for phase in phases[1:]), end]
    for phase, stop in zip(phases, stops, strict=True):
        levels = (("floor", phase.task.floor, FLOOR), ("plateau", phase.task.plateau, PLATEAU))
        for name, value, color in levels:
            if value is None or phase.start >= end:
                continue
            label = "_nolegend_" if name in named else name
            named.add(name)
            axes.hlines(
                SEQUENCE * value,
                phase.start,
                min(stop, end),
                color=color,
                linestyle="--",
                linewidth=1,
                label=label,
            )
