"""The parts that all figures of loss and units share: axes, floors, plateaus and switches of task."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffstruct.paper.tasks import SEQUENCE, Phase

# Wong's palette (Nature Methods 8, 441, 2011), which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
_LEVELS = {"floor": "--", "plateau": "-."}  # greys, apart from every color of a curve


def frame(
    title: str, phases: Sequence[Phase], end: int, units: bool = True
) -> tuple[Figure, Axes, Axes | None]:
    """An empty figure: loss above and, if wanted, units below, over steps 0 to `end`."""
    figure = Figure(figsize=(7, 5.2 if units else 4.2), layout="constrained")
    if units:
        loss, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        below.set_ylabel("units")
    else:
        loss, below = figure.subplots(), None
    figure.suptitle(title)
    loss.set_ylabel(f"nats per {SEQUENCE} characters")
    lowest = loss if below is None else below
    lowest.set_xlabel("updates")
    lowest.set_xlim(0, end)
    lowest.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for axes in (loss, below):
        if axes is not None:
            axes.spines[["top", "right"]].set_visible(False)
            for phase in phases[1:]:
                axes.axvline(phase.start, color="0.4", linewidth=1, linestyle=":")
    return figure, loss, below


def draw_levels(axes: Axes, phases: Sequence[Phase], end: int) -> None:
    """Floors and plateaus, each over the steps of its phase and named once in the legend."""
    named: set[str] = set()
    for phase, (start, stop) in zip(phases, pairwise([*(p.start for p in phases), end]), strict=True):
        for name, value in (("floor", phase.task.floor), ("plateau", phase.task.plateau)):
            if value is None or start >= end:
                continue
            label = "_nolegend_" if name in named else name
            named.add(name)
            axes.hlines(
                SEQUENCE * value,
                start,
                min(stop, end),
                color="0.25",
                linestyle=_LEVELS[name],
                linewidth=1,
                label=label,
            )


def limit(axes: Axes, phases: Sequence[Phase], settled: Sequence[float]) -> None:
    """Show the floors and the `settled` losses, and cut off the initial fall."""
    floors = [SEQUENCE * phase.task.floor for phase in phases if phase.task.floor is not None]
    bottom, top = min([*floors, *settled]), max(settled)
    margin = 0.06 * max(top - bottom, 1.0)
    axes.set_ylim(bottom - margin, top + margin)
