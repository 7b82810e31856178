"""How far a run is: as an observer is shown it, and as `run.json` and the figure tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffstruct.paper.run_settings import Settings, versions
from diffstruct.paper.tasks import SEQUENCE, Phase, Task
from diffstruct.structure import History


@dataclass
class Progress:
    """The state of a run, which an observer is shown."""

    cycles: int
    """Steps planned."""
    phases: Sequence[Phase]
    history: History
    update: int = 0
    loss: float = 0.0
    units: int = 1
    seconds: float = 0.0

    @property
    def task(self) -> Task:
        """The task that is being read."""
        return [phase for phase in self.phases if phase.start <= self.update][-1].task

    @property
    def seconds_left(self) -> float:
        """An estimate from the speed so far; infinite before the first step."""
        return self.seconds * (self.cycles / self.update - 1) if self.update else float("inf")


def summary(settings: Settings, progress: Progress, status: str) -> dict[str, Any]:
    """What `run.json` holds."""
    last = progress.phases[-1].task
    return {
        "status": status,
        "task": settings.name,
        "revision": settings.revision,
        "seed": settings.seed,
        "cycles": progress.update,
        "cycles_planned": progress.cycles,
        "final_loss": progress.loss,
        "final_units": progress.units,
        "alphabet": last.alphabet,
        "floor": _floor(last),
        "floors": [[phase.start, _floor(phase.task)] for phase in progress.phases],
        "seconds": round(progress.seconds, 3),
        "versions": versions(),
    }


def _floor(task: Task) -> float | None:
    return None if task.floor is None else SEQUENCE * task.floor


def title(summary: dict[str, Any]) -> str:
    """The title of a run's figure."""
    floor, revision = summary["floor"], summary["revision"]
    way = "" if revision is None else f", revision {revision}"
    end = "" if floor is None else f" (floor {floor:.2f})"
    result = f"{summary['final_units']} units, loss {summary['final_loss']:.2f}"
    return f"{summary['task']}{way}, seed {summary['seed']}: {result}{end}"
