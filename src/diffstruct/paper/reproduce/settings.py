"""The networks and tasks of the paper's figures, and the numbers that the paper reports.

Thomas Miconi, "Neural networks with differentiable structure", arXiv:1606.06216 (2016), in its three
revisions. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from diffstruct.errors import ConfigurationError
from diffstruct.paper.revisions import REVISIONS
from diffstruct.paper.tasks import Phase, easy, hard, transition

FIGURES: Final = ("easy", "hard", "fixed", "transition")
"""Names of the figures."""

POINTS = 200
"""Evenly spaced measurements on a curve, beside step 0 and the ends of phases."""

OFF_PLATEAU = 10.6
"""Nats per 40 characters on hard below which a network is off the plateau (13.5; the floor is 8.96)."""

_FIXED_UNITS = {1: (10, 27, 50, 100), 2: (10, 27, 50, 100), 3: (20, 37, 50, 100)}
_EASY_P = {1: 0.6, 2: 0.6, 3: 0.75}  # the author's data; revision 3's text and figure match 0.75
_USUAL_UNITS = {"easy": 10, "hard": 35, "transition": 30}  # roughly; only the order of jobs hangs on it


@dataclass(frozen=True)
class Reported:
    """The paper's numbers for a figure of one revision, read off its text and its figures.

    Args:
        loss: final, in nats per 40 characters; None where it gives none.
        units: median units at the end of each phase; empty where it gives none.
        fixed_loss: final loss of the best fixed size.
        remark: what else it reports.
    """

    loss: float | None = None
    units: tuple[int, ...] = ()
    fixed_loss: float | None = None
    remark: str = ""


PAPER: Final = {
    ("easy", 1): Reported(9.7, (6,)),
    ("easy", 2): Reported(9.7, (6,)),
    ("easy", 3): Reported(9.0, (14,)),
    ("hard", 1): Reported(10.0, (27,)),
    ("hard", 2): Reported(10.0, (27,)),
    ("hard", 3): Reported(10.2, (37,)),
    ("fixed", 1): Reported(10.0, (27,), fixed_loss=14.0, remark="best fixed size: 27 units"),
    ("fixed", 2): Reported(10.0, (27,), fixed_loss=14.0),
    ("fixed", 3): Reported(10.2, (37,), fixed_loss=13.0),
    ("transition", 1): Reported(units=(6, 21, 20), remark="does not shrink"),
    ("transition", 2): Reported(remark="does not shrink"),
    ("transition", 3): Reported(units=(14, 42, 19), remark="peak 60 units"),
}
"""Figure and revision to the paper's own numbers; all are approximate."""


@dataclass(frozen=True)
class Setting:
    """One kind of network on one task; runs of it differ in their seed only.

    Args:
        revision: of the paper.
        task: `"easy"`, `"hard"` or `"transition"`.
        fixed_units: None where the width is learned.
    """

    revision: int
    task: str
    fixed_units: int | None = None

    @property
    def name(self) -> str:
        """The name of its folder, such as `hard-r2` or `hard-r3-fixed37`."""
        fixed = "" if self.fixed_units is None else f"-fixed{self.fixed_units}"
        return f"{self.task}-r{self.revision}{fixed}"

    @property
    def label(self) -> str:
        """Its size, as shown to the user."""
        return "learned size" if self.fixed_units is None else f"{self.fixed_units} units"


@dataclass(frozen=True)
class Panel:
    """A figure of one revision, and the settings that it shows.

    A fixed-size network has no multipliers, so that those of revision 1 and 2 are the same network under
    the same program: both revisions show the same runs, under revision 2's name.
    """

    figure: str
    revision: int
    settings: tuple[Setting, ...]

    @property
    def name(self) -> str:
        """The name of its files, such as `fixed-r3`."""
        return f"{self.figure}-r{self.revision}"


@dataclass(frozen=True)
class Job:
    """One network to train: a setting, a seed and a number of steps."""

    setting: Setting
    seed: int
    cycles: int

    @property
    def cost(self) -> float:
        """A measure of how long it takes, which serves to compare jobs only."""
        units = self.setting.fixed_units or _USUAL_UNITS[self.setting.task]
        return float(self.cycles * (20 + units))


def choose(wanted: str, known: Sequence[str], name: str) -> list[str]:
    """`wanted` as a list, or all that are known if it is `"all"`.

    Raises:
        ConfigurationError: it is none of them.
    """
    if wanted == "all":
        return [*known]
    if wanted not in known:
        raise ConfigurationError(f"{name} must be one of {', '.join(known)} or all, got {wanted!r}")
    return [wanted]


def panels(figures: Iterable[str], revisions: Iterable[int]) -> list[Panel]:
    """The figures of the revisions, figure by figure."""
    revisions = list(revisions)
    return [Panel(f, r, _settings(f, r)) for f in figures for r in revisions]


def _settings(figure: str, revision: int) -> tuple[Setting, ...]:
    if figure != "fixed":
        return (Setting(revision, figure),)
    program = max(revision, 2)
    fixed = (Setting(program, "hard", units) for units in _FIXED_UNITS[revision])
    return (Setting(revision, "hard"), *fixed)


def jobs(shown: Iterable[Panel], seeds: int, cycles: int | None = None) -> list[Job]:
    """Every run that the panels need, each once, the longest first so that none is left for the end.

    Args:
        shown: the panels.
        seeds: runs of each setting.
        cycles: steps of each run; None for the revision's.

    Raises:
        ConfigurationError: a number that cannot work.
    """
    for name, value in (("seeds", seeds), ("cycles", cycles)):
        if value is not None and value < 1:
            raise ConfigurationError(f"{name} must be at least 1, got {value}")
    unique = dict.fromkeys(setting for panel in shown for setting in panel.settings)
    found = [
        Job(setting, seed, REVISIONS[setting.revision].cycles if cycles is None else cycles)
        for setting in unique
        for seed in range(seeds)
    ]
    for job in {job.setting: job for job in found}.values():
        phases(job)  # refuses too few cycles now and not within a run
    return sorted(found, key=lambda job: -job.cost)


def phases(job: Job) -> tuple[Phase, ...]:
    """The schedule of tasks that a run reads.

    Raises:
        ConfigurationError: too few steps for a transition.
    """
    p = _EASY_P[job.setting.revision]
    if job.setting.task == "transition":
        return transition(job.cycles, p=p)
    return (Phase(0, easy(p) if job.setting.task == "easy" else hard()),)


def ends(job: Job) -> tuple[int, ...]:
    """The step after which each phase of a run is over."""
    return (*(phase.start for phase in phases(job)[1:]), job.cycles)


def points(job: Job) -> tuple[int, ...]:
    """The steps after which a run is measured, from 0 on."""
    even = {round(job.cycles * index / POINTS) for index in range(POINTS + 1)}
    return tuple(sorted({0, *even, *ends(job)}))
