"""The picture of a run: loss and units over time, in the manner of the paper's figures."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from diffstruct.paper.figures.levels import draw_levels, frame, limit
from diffstruct.paper.tasks import Phase
from diffstruct.structure import Measurement

LOSS, UNITS = "#1f5fa8", "#c0392b"


def draw_run(title: str, measurements: Sequence[Measurement], phases: Sequence[Phase]) -> bytes:
    """Draw a run's loss (nats per sequence) beside its floor, and its units; return a PNG.

    Args:
        title: its heading.
        measurements: at least one, in order.
        phases: the schedule; gives floors, plateaus and the switches of task.
    """
    updates = [measurement.update for measurement in measurements]
    end = max(updates[-1], 1)
    figure, loss, units = frame(title, phases, end)
    assert units is not None
    loss.plot(updates, [m.loss for m in measurements], color=LOSS, label="loss (smoothed)")
    units.step(updates, [m.units for m in measurements], where="post", color=UNITS)
    draw_levels(loss, phases, end)
    limit(loss, phases, [m.loss for m in measurements if m.update >= end / 50] or [measurements[-1].loss])
    loss.legend(loc="upper right", frameon=False, ncols=3, fontsize="small")
    units.set_ylim(bottom=0)
    picture = BytesIO()
    figure.savefig(picture, dpi=150, format="png")
    return picture.getvalue()
