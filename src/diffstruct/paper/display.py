"""The progress of a run, as shown to the user: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from diffstruct.paper.progress import Progress
from diffstruct.paper.tasks import SEQUENCE

_BARS = "▁▂▃▄▅▆▇█"
_CHART_WIDTH = 60
_LINE_EVERY = 0.05
"""Fraction of a run between two plain lines."""


def chart(values: Sequence[float], width: int = _CHART_WIDTH) -> str:
    """A one-line chart of `values`, at most `width` characters, from zero to their largest."""
    if len(values) > width:
        step = len(values) / width
        values = [values[int((column + 1) * step) - 1] for column in range(width)]
    top = max([*values, 1e-12])
    return "".join(_BARS[min(int(value / top * len(_BARS)), len(_BARS) - 1)] for value in values)


def duration(seconds: float) -> str:
    """A time span in minutes or hours: `1:05` or `2:03:04`; `-` when unknown."""
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def floor_of(progress: Progress) -> str:
    """The floor of the task that is being read, in nats per sequence; `-` when unknown."""
    floor = progress.task.floor
    return "-" if floor is None else f"{SEQUENCE * floor:.3f}"


class LivePanel:
    """Redraws one panel in a terminal; a context manager and an observer of runs."""

    def __init__(self, console: Console, title: str) -> None:
        self._title = title
        self._live = Live(console=console, refresh_per_second=8, transient=False)

    def __call__(self, progress: Progress) -> None:
        """Show `progress`."""
        self._live.update(self._draw(progress))

    def _draw(self, progress: Progress) -> Panel:
        history = progress.history
        bar = Table.grid()  # a bar alone would not end its line
        bar.add_row(ProgressBar(total=progress.cycles, completed=progress.update, width=_CHART_WIDTH))
        table = Table.grid(padding=(0, 3))
        table.add_row(
            f"[dim]cycle[/] {progress.update:,} of {progress.cycles:,}",
            f"[dim]time left[/] {duration(progress.seconds_left)}",
            f"[dim]reading[/] {progress.task.name}",
        )
        table.add_row(
            f"[dim]loss[/] [bold]{progress.loss:.3f}[/]",
            f"[dim]floor[/] {floor_of(progress)}",
            f"[dim]nats per {SEQUENCE} characters[/]",
        )
        table.add_row(
            f"[dim]units[/] [bold]{progress.units}[/]",
            f"[dim]added[/] {history.added()}",
            f"[dim]removed[/] {history.removed()}",
        )
        units = [float(measurement.units) for measurement in history.measurements]
        return Panel(
            Group(
                bar,
                table,
                Text(chart(units), style="cyan"),
                Text(
                    f"units so far, highest {max([*units, 1.0]):.0f}"
                    if progress.update
                    else "compiling the training loop: about 15 seconds, the first time only",
                    style="dim",
                ),
            ),
            title=self._title,
            title_align="left",
            expand=False,
        )

    def __enter__(self) -> LivePanel:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()


class PlainLines:
    """Prints a line now and then, for logs and pipes; an observer of runs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        """Print a line for `progress` if it has come far enough since the last one."""
        if progress.update < self._next:
            return
        self._next = progress.update + _LINE_EVERY * progress.cycles
        history = progress.history
        self._console.print(
            f"cycle {progress.update:,} of {progress.cycles:,}  loss {progress.loss:.3f}  "
            f"floor {floor_of(progress)}  units {progress.units}  added {history.added()}  "
            f"removed {history.removed()}  left {duration(progress.seconds_left)}",
            highlight=False,
            soft_wrap=True,
        )
