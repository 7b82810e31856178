"""Schedules: one task, or several one after the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffstruct.errors import DataError
from diffstruct.paper.tasks.task import Task, need
from diffstruct.paper.tasks.texts import easy, hard, text_file

NAMES = ("easy", "hard", "transition")
"""What a schedule may be called by name."""


@dataclass(frozen=True)
class Phase:
    """A part of a run: from step `start` on (counted from 0), `task` is read."""

    start: int
    task: Task


def transition(cycles: int, p: float = 0.6, letters: int = 6) -> tuple[Phase, Phase, Phase]:
    """Easy, then hard, then easy again, switched at one third and two thirds of `cycles` steps.

    Raises:
        ConfigurationError: a parameter that cannot work, such as fewer than 3 steps.
    """
    need(cycles >= 3, "cycles", "at least 3 steps, one a phase", cycles)
    both = easy(p)
    return Phase(0, both), Phase(cycles // 3, hard(letters)), Phase(2 * cycles // 3, both)


def hard_easy(cycles: int, p: float = 0.6, letters: int = 6) -> tuple[Phase, Phase]:
    """Hard, then easy, switched at one half of `cycles` steps.

    Raises:
        ConfigurationError: a parameter that cannot work, such as fewer than 2 steps.
    """
    need(cycles >= 2, "cycles", "at least 2 steps, one a phase", cycles)
    return Phase(0, hard(letters)), Phase(cycles // 2, easy(p))


def schedule(
    task: str | os.PathLike[str] | Task | Sequence[Phase], cycles: int
) -> tuple[str, tuple[Phase, ...]]:
    """The name and the phases of a schedule.

    Args:
        task: `"easy"`, `"hard"`, `"transition"`, the path of a text file, a task, or phases.
        cycles: steps of the run, for the switches of a transition.

    Raises:
        DataError: there is no task and no file of that name, or the file cannot be learned from.
        ConfigurationError: too few steps for a transition.
    """
    if isinstance(task, Task):
        return task.name, (Phase(0, task),)
    if not isinstance(task, (str, os.PathLike)):
        return "-".join(phase.task.name for phase in task), tuple(task)
    if task == "transition":
        return task, transition(cycles)
    if task in ("easy", "hard"):
        return task, (Phase(0, easy() if task == "easy" else hard()),)
    if not os.path.exists(task):
        raise DataError(
            f"there is no task and no file {os.fspath(task)!r}: choose easy, hard or transition, "
            "or give the path of a text file"
        )
    return Path(task).stem, (Phase(0, text_file(task)),)
