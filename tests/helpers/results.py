"""Hand-made runs of a reproduction."""

from diffstruct.paper.reproduce.runs import Result
from diffstruct.paper.reproduce.settings import Job, Setting, jobs, panels, points
from diffstruct.paper.reproduce.summary import summarize
from diffstruct.structure import Measurement

HARD, FIXED, TRANSITION = Setting(2, "hard"), Setting(2, "hard", 10), Setting(2, "transition")


def result(setting, seed, loss, units=5, cycles=30, seconds=1.0):
    """A hand-made run: `loss` and `units` are numbers, or functions of the update."""
    job = Job(setting, seed, cycles)
    at = [value if callable(value) else (lambda _, value=value: value) for value in (loss, units)]
    curve = tuple(Measurement(update, float(at[0](update)), at[1](update)) for update in points(job))
    return Result(job, curve, 7, 3, seconds, "a machine, 2 cores", {"diffstruct": "0", "torch": "2"})


def summary_of(results, figures=("fixed", "transition"), failures=()):
    shown = panels(figures, [2])
    return summarize(shown, jobs(shown, 5, 30), results, failures)
