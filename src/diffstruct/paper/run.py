"""A run: grow a network on a task, from one unit, and record it in a run folder."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffstruct.errors import ConfigurationError, DivergenceError
from diffstruct.nn import kernels
from diffstruct.paper.revisions import get_revision
from diffstruct.paper.run_folder import RunFolder
from diffstruct.paper.seeds import split_seed
from diffstruct.paper.tasks import SEQUENCE, Phase, Reader, Task, schedule
from diffstruct.paper.training import Trainer
from diffstruct.rule import Rule
from diffstruct.structure import History, Measurement

SAVE_EVERY = 10.0
"""Seconds between two savings of the weights while a run goes on."""
TELL_EVERY = 0.1
"""Seconds between two calls of the observer."""


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


def fastest_trainer() -> type[Trainer]:
    """The compiled training loop where Numba is there, else the ordinary one."""
    if not kernels.available:
        return Trainer
    from diffstruct.paper.compiled.trainer import (
        FusedTrainer,  # imports Numba, which takes a moment
    )

    return FusedTrainer


class Run:
    """A network of the paper that grows from one unit while it reads.

    Args:
        task: the text to read: "easy", "hard", "transition", a text file, a task, or a schedule of phases.
        revision: of the paper, 1, 2 or 3; None for diffstruct's own way.
        cycles: steps to make; None for the revision's.
        seed: of weights, structure and texts; the same seed gives the same run.
        rule: instead of the revision's.

    Raises:
        ConfigurationError: a parameter that cannot work.
        DataError: there is no such task, or the text cannot be learned from.
    """

    def __init__(
        self,
        task: str | os.PathLike[str] | Task | Sequence[Phase],
        *,
        revision: int | None = None,
        cycles: int | None = None,
        seed: int = 0,
        rule: Rule | None = None,
    ) -> None:
        constants = get_revision(revision)
        if rule is not None:
            constants = replace(constants, rule=rule)
        cycles = constants.cycles if cycles is None else cycles
        if cycles < 1:
            raise ConfigurationError(f"cycles must be at least 1, got {cycles}")
        if seed < 0:
            raise ConfigurationError(f"seed must be at least 0, got {seed}")
        constants = replace(constants, cycles=cycles)
        self.seed = seed
        self.name, phases = schedule(task, cycles)
        network_seed, text_seed = split_seed(seed)
        self.reader = Reader(phases, torch.Generator().manual_seed(text_seed))
        self.trainer = fastest_trainer()(constants, len(phases[0].task.alphabet), network_seed)
        self.history = self.trainer.history
        self.progress = Progress(cycles, phases, self.history)
        self._stopping = False
        self._logged = 0  # events
        self._good: dict[str, Tensor] = {}  # the weights at the last measurement that was all finite

    def go(
        self,
        out: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        observe: Callable[[Progress], None] = lambda progress: None,
    ) -> dict[str, Any]:
        """Make all steps, or as many as `stop` allows, and record them in a run folder.

        Args:
            out: the folder.
            overwrite: whether a run that it already holds may be replaced.
            observe: called now and then with the state of the run.

        Returns:
            The summary, as in `run.json`.

        Raises:
            DivergenceError: the loss became infinite or not a number; the folder then holds the last
                good state.
            RunFolderError: the folder holds a run, or the disk refuses.
        """
        with RunFolder(Path(out), overwrite) as folder:
            try:
                self._train(folder, observe)
            except DivergenceError as error:
                self._close(folder, "diverged")
                raise DivergenceError(f"{error}; the last good state is in {out}") from error
            done = self.trainer.updates == self.progress.cycles
            summary = self._close(folder, "finished" if done else "stopped")
        observe(self.progress)
        return summary

    def stop(self) -> None:
        """End the run after the present step, and save everything; may be called by a signal handler."""
        self._stopping = True

    def _train(self, folder: RunFolder, observe: Callable[[Progress], None]) -> None:
        # A row at least every 1,000 steps, and enough of them for a figure of a short run.
        every = max(1, min(1000, self.progress.cycles // 200))
        self._measure(folder)
        self._save(folder, "running")
        trainer, progress = self.trainer, self.progress
        observe(progress)
        trainer.prepare()
        begin = saved = told = time.perf_counter()
        while trainer.updates < progress.cycles and not self._stopping:
            until = min(every - trainer.updates % every, progress.cycles - trainer.updates)
            trainer.advance(self.reader.take(min(until, trainer.stride)))
            now = time.perf_counter()
            progress.seconds = now - begin
            if trainer.updates % every == 0:
                self._measure(folder)
                if now - saved > SAVE_EVERY:
                    self._save(folder, "running")
                    saved = now
            if now - told > TELL_EVERY:
                self._look()
                observe(progress)
                told = now

    def _look(self) -> None:
        """Bring the progress up to date."""
        trainer, progress = self.trainer, self.progress
        progress.update, progress.loss = trainer.updates, trainer.smoothed
        progress.units = trainer.units

    def _measure(self, folder: RunFolder) -> None:
        """Record a measurement, and the events since the last one."""
        self._look()
        measurement = Measurement(self.progress.update, self.progress.loss, self.progress.units)
        self.history.measurements.append(measurement)
        events = self.history.events
        folder.append(measurement, events[self._logged :])
        self._logged = len(events)
        weights = {key: value.clone() for key, value in self.trainer.model.state_dict().items()}
        if all(bool(value.isfinite().all()) for value in weights.values()):
            self._good = weights

    def _save(self, folder: RunFolder, status: str) -> dict[str, Any]:
        last, progress = self.progress.phases[-1].task, self.progress
        summary = {
            "status": status,
            "task": self.name,
            "revision": self.trainer.revision.number,
            "seed": self.seed,
            "cycles": progress.update,
            "cycles_planned": progress.cycles,
            "final_loss": progress.loss,
            "final_units": progress.units,
            "alphabet": last.alphabet,
            "floor": None if last.floor is None else SEQUENCE * last.floor,
            "seconds": round(progress.seconds, 3),
            "versions": {
                "diffstruct": version("diffstruct"),
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }
        folder.save(summary, self._good)
        return summary

    def _close(self, folder: RunFolder, status: str) -> dict[str, Any]:
        """Measure the last steps if that is still to be done, and save everything."""
        from diffstruct.paper.figures.run import draw_run  # Matplotlib: only where a figure is drawn

        if self.history.measurements[-1].update < self.trainer.updates:
            self._measure(folder)
        summary = self._save(folder, status)
        floor = summary["floor"]
        way = "" if summary["revision"] is None else f", revision {summary['revision']}"
        title = f"{self.name}{way}, seed {self.seed}: "
        title += f"{summary['final_units']} units, loss {summary['final_loss']:.2f}"
        title += "" if floor is None else f" (floor {floor:.2f})"
        picture = draw_run(title, self.history.measurements, self.progress.phases)
        folder.replace("units.png", picture)
        return summary
