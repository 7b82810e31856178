"""What is printed while the grid runs: a progress bar in a terminal, elsewhere one line per run."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from diffstruct.paper.display import duration
from diffstruct.paper.reproduce.grid import GridProgress
from diffstruct.paper.reproduce.runs import Result
from diffstruct.paper.reproduce.settings import Job
from diffstruct.paper.reproduce.side_by_side import Failure


def describe(outcome: Result | Failure[Job]) -> str:
    """One line about a run that has ended."""
    name = f"{outcome.job.setting.name} seed {outcome.job.seed}"
    if isinstance(outcome, Failure):
        return f"{name} FAILED: {outcome.error}"
    last = outcome.last
    return f"{name}: loss {last.loss:.3f}, {last.units} units, {duration(outcome.seconds)}"


class GridLines:
    """Prints a line per run, for logs and pipes; an observer of grids."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, progress: GridProgress) -> None:
        """Print the last outcome, or at the start how many runs there are."""
        if progress.last is None:
            rest = f"{progress.found} found" if progress.found else "none found"
            side = f"{progress.workers} side by side"
            self._print(f"{len(progress.jobs)} runs, {rest}, {side}, left {duration(progress.seconds_left)}")
            return
        self._print(
            f"{progress.done} of {len(progress.jobs)}  {describe(progress.last)}  "
            f"left {duration(progress.seconds_left)}"
        )

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class _Left(ProgressColumn):
    """The time left, which falls between runs as well."""

    def __init__(self, bar: GridBar) -> None:
        self._bar = bar
        super().__init__()

    def render(self, task: Task) -> Text:
        progress = self._bar.progress
        left = duration(float("inf") if progress is None else progress.seconds_left)
        return Text(f"left {left}", style="cyan")


class GridBar:
    """One bar over the whole grid, in a terminal; a context manager and an observer of grids."""

    def __init__(self, console: Console) -> None:
        self.progress: GridProgress | None = None
        self._console = console
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} runs"),
            TimeElapsedColumn(),
            _Left(self),
            TextColumn("{task.description}", style="dim", markup=False),
            console=console,
        )

    def __call__(self, progress: GridProgress) -> None:
        """Show the progress; failures stay on screen above the bar."""
        if self.progress is None:
            self._bar.add_task("", total=len(progress.jobs))
        self.progress = progress
        last = progress.last
        if isinstance(last, Failure):
            self._console.print(describe(last), style="red", highlight=False, markup=False)
        shown = "" if last is None else describe(last)
        (task,) = self._bar.task_ids
        self._bar.update(task, completed=progress.done, description=shown, refresh=True)

    def __enter__(self) -> GridBar:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
