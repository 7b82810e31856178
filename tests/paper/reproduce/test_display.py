"""The bar of a reproduction."""

from io import StringIO

from helpers.results import HARD, result
from rich.console import Console

from diffstruct.paper.reproduce.display import GridBar
from diffstruct.paper.reproduce.grid import GridProgress
from diffstruct.paper.reproduce.settings import Job
from diffstruct.paper.reproduce.side_by_side import Failure


def test_the_bar_shows_runs_time_left_and_every_failure():
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=140, color_system=None)
    progress = GridProgress([Job(HARD, seed, 30) for seed in range(3)])
    with GridBar(console) as bar:
        bar(progress)
        progress.add(result(HARD, 0, 9.25, units=31, seconds=65))
        bar(progress)
        progress.add(Failure(Job(HARD, 1, 30), "the loss is nan [at] update 7"))
        bar(progress)
    shown = screen.getvalue()
    assert "0 of 3 runs" in shown
    assert "left -" in shown
    assert "1 of 3 runs" in shown
    assert "left 2:10" in shown
    assert "hard-r2 seed 0: loss 9.250, 31 units, 1:05" in shown
    assert "hard-r2 seed 1 FAILED: the loss is nan [at] update 7\n" in shown.replace("\r", "")
    assert "left 1:05" in shown
