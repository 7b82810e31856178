"""Grow a network on a task, from one unit, and keep what happened in a run folder."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffstruct.errors import ConfigurationError, DivergenceError
from diffstruct.history import History, Measurement
from diffstruct.report.figure import draw_run
from diffstruct.revisions import Revision
from diffstruct.run_folder import RunFolder
from diffstruct.tasks import SEQUENCE, Phase, Task, windows
from diffstruct.training import Trainer

SAVE_EVERY = 10.0
"""Seconds between two savings of the weights while a run goes on."""
TELL_EVERY = 0.1
"""Seconds between two calls of the observer."""


@dataclass
class Progress:
    """Where a run stands: what an observer is shown."""

    cycles: int
    """Updates planned."""
    phases: Sequence[Phase]
    history: History
    update: int = 0
    loss: float = 0.0
    units: int = 1
    seconds: float = 0.0

    @property
    def task(self) -> Task:
        """What is being read now."""
        return [phase for phase in self.phases if phase.start <= self.update][-1].task

    @property
    def seconds_left(self) -> float:
        """An estimate from the speed so far; infinite before the first update."""
        return self.seconds * (self.cycles / self.update - 1) if self.update else float("inf")


class Run:
    """A network that grows from one unit on a schedule of tasks, on record in a run folder.

    Args:
        phases: what to read when; see `tasks.windows`.
        revision: the paper's constants, possibly with another rule.
        name: of the task, for the record.
        cycles: updates to make.
        seed: of weights, structure and texts; the same seed gives the same run.

    Raises:
        ConfigurationError: fewer than one cycle, or a negative seed.
        DataError: a text that cannot be learned from.
    """

    def __init__(
        self,
        phases: Sequence[Phase],
        revision: Revision,
        *,
        name: str,
        cycles: int,
        seed: int = 0,
    ) -> None:
        if cycles < 1:
            raise ConfigurationError(f"cycles must be at least 1, got {cycles}")
        if seed < 0:
            raise ConfigurationError(f"seed must be at least 0, got {seed}")
        network_seed, text_seed = np.random.SeedSequence(seed).generate_state(2).tolist()
        self.windows = windows(phases, torch.Generator().manual_seed(text_seed))
        self.trainer = Trainer(revision, len(phases[0].task.alphabet), network_seed)
        self.history = self.trainer.history
        self.progress = Progress(cycles, phases, self.history)
        self.name, self.seed = name, seed
        self._logged = 0  # events
        self._good: dict[str, Tensor] = {}  # the weights at the last measurement that was all finite

    def go(
        self, folder: RunFolder, observe: Callable[[Progress], None] = lambda progress: None
    ) -> dict[str, Any]:
        """Make all updates, or as many as Ctrl-C allows; return the summary, as in `run.json`.

        Args:
            folder: where the record goes.
            observe: called now and then with the state of the run.

        Raises:
            DivergenceError: the loss became infinite or not a number; the folder then holds the last
                good state.
            RunFolderError: the disk refuses.
        """
        # A row at least each 1,000 updates, and enough of them for a figure of a short run.
        every = max(1, min(1000, self.progress.cycles // 200))
        status = "finished"
        self._measure(folder)
        begin = saved = told = time.perf_counter()
        try:
            for window in islice(self.windows, self.progress.cycles):
                self.trainer.update(window)
                now = time.perf_counter()
                self.progress.seconds = now - begin
                if self.trainer.updates % every == 0:
                    self._measure(folder)
                    if now - saved > SAVE_EVERY:
                        self._save(folder, "running")
                        saved = time.perf_counter()
                if now - told > TELL_EVERY:
                    self._look()
                    observe(self.progress)
                    told = now
        except KeyboardInterrupt:
            status = "stopped"
        except DivergenceError as error:
            self._close(folder, "diverged")
            raise DivergenceError(f"{error}; the last good state is in {folder.path}") from error
        summary = self._close(folder, status)
        observe(self.progress)
        return summary

    def _look(self) -> None:
        """Bring the progress up to date."""
        trainer, progress = self.trainer, self.progress
        progress.update, progress.loss = trainer.updates, trainer.smoothed
        progress.units = trainer.units

    def _measure(self, folder: RunFolder) -> None:
        """Put a measurement, and the events since the last one, on record."""
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
        """Measure what has not been, and save everything."""
        if self.history.measurements[-1].update < self.trainer.updates:
            self._measure(folder)
        summary = self._save(folder, status)
        floor = summary["floor"]
        title = f"{self.name}, revision {summary['revision']}, seed {self.seed}: "
        title += f"{summary['final_units']} units, loss {summary['final_loss']:.2f}"
        title += "" if floor is None else f" (floor {floor:.2f})"
        picture = draw_run(title, self.history.measurements, self.progress.phases)
        folder.replace("units.png", picture)
        return summary
