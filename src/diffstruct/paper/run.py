"""A run: grow a network on a task, from one unit, and record it in a run folder."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffstruct.errors import (
    ConfigurationError,
    DataError,
    DiffstructError,
    DivergenceError,
    ResumeWarning,
    RunFolderError,
)
from diffstruct.nn import kernels
from diffstruct.paper.progress import Progress, summary, title
from diffstruct.paper.revisions import get_revision
from diffstruct.paper.run_folder import RunFolder
from diffstruct.paper.run_settings import Reads, Settings, changed_text, differences, made_with
from diffstruct.paper.seeds import split_seed
from diffstruct.paper.tasks import Reader, schedule
from diffstruct.paper.training import Trainer
from diffstruct.rule import Rule
from diffstruct.structure import History, Measurement

SAVE_EVERY = 10.0
"""Seconds between two savings of the weights, and of the checkpoint, while a run goes on."""
TELL_EVERY = 0.1
"""Seconds between two calls of the observer."""


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
        task: Reads,
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
        name, phases = schedule(task, cycles)
        self.settings = Settings.of(task, name, phases, revision, cycles, seed, constants.rule)
        network_seed, text_seed = split_seed(seed)
        self.reader = Reader(phases, torch.Generator().manual_seed(text_seed))
        self.trainer = fastest_trainer()(constants, len(phases[0].task.alphabet), network_seed)
        self.progress = Progress(cycles, phases, self.history)
        self._resumed: RunFolder | None = None  # the folder of a run that is gone on with
        self._stopping = False
        self._logged = 0  # events
        self._good: dict[str, Tensor] = {}  # the weights at the last measurement that was all finite

    @classmethod
    def resume(cls, folder: str | os.PathLike[str], task: Reads | None = None, **expected: Any) -> Run:
        """Go on with a run that was stopped or killed: returns it where its last checkpoint was; then `go()`.

        What comes out is the same as without the interruption, bit for bit, on the same machine and with the
        same versions. Until `go` or `close` has returned, the folder is locked.

        Args:
            folder: that holds the run.
            task: what the run reads, if the folder cannot say it: a text file that has moved, or a task that
                was made in Python.
            expected: settings that the run must have, by their names in `Run` and in `Rule`; None for any.

        Raises:
            RunFolderError: there is no run that could be gone on with, or another process is at work on it.
            DataError: the text is gone, or has changed.
            ConfigurationError: a task is missing, or a setting is another than expected.
        """
        opened = RunFolder(Path(folder), resume=True)
        try:
            run = cls._again(opened.load_state(), task, expected)
        except BaseException as error:
            opened.close()
            if isinstance(error, DiffstructError) or not isinstance(error, Exception):
                raise
            raise RunFolderError(
                f"what {folder} has a checkpoint of is no run ({type(error).__name__}: {error}): begin anew"
            ) from error
        run._resumed = opened
        return run

    @classmethod
    def _again(cls, state: Mapping[str, Any], task: Reads | None, expected: Mapping[str, Any]) -> Run:
        """A run of the same settings, where it was when its state was saved."""
        settings = Settings.read(state["settings"])
        settings.check(expected)
        run = cls(
            settings.reads(task),
            revision=settings.revision,
            cycles=settings.cycles,
            seed=settings.seed,
            rule=settings.rule,
        )
        settings.check_reads(run.settings)
        try:
            run.reader.load_state_dict(state["reader"])
        except DataError as error:
            raise changed_text(run.settings.file) from error
        run.settings = replace(run.settings, name=settings.name)
        run.trainer.load_state_dict(state["trainer"])
        run.progress.history, run.progress.seconds = run.history, state["seconds"]
        run._good = {name: tensor.clone() for name, tensor in state["good"].items()}
        run._look()
        changed = differences(state["made_with"], made_with(type(run.trainer).__name__))
        if changed:
            what = f"the run will not go on bit for bit as it would have: {changed}"
            warnings.warn(what, ResumeWarning, stacklevel=3)
        return run

    @property
    def history(self) -> History:
        """What was measured, and what changed."""
        return self.trainer.history

    @property
    def name(self) -> str:
        """What the run is called, by what it reads."""
        return self.settings.name

    @property
    def seed(self) -> int:
        """The seed of everything."""
        return self.settings.seed

    @property
    def resumed(self) -> bool:
        """Whether it goes on in a folder, at the next call of `go`."""
        return self._resumed is not None

    def go(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        overwrite: bool = False,
        observe: Callable[[Progress], None] = lambda progress: None,
    ) -> dict[str, Any]:
        """Make all steps, or as many as `stop` allows, and record them in a run folder.

        Args:
            out: the folder; a run that is gone on with has its own.
            overwrite: whether a run that it already holds may be replaced.
            observe: called now and then with the state of the run.

        Returns:
            The summary, as in `run.json`.

        Raises:
            ConfigurationError: no folder is given, or one for a run that has its own.
            DivergenceError: the loss became infinite or not a number; the folder then holds the last
                good state.
            RunFolderError: the folder holds a run, or the disk refuses.
        """
        resumed, self._resumed = self._resumed, None
        if resumed is None and out is None:
            raise ConfigurationError("say in which folder to record the run: go(folder)")
        with resumed or RunFolder(Path(out or ""), overwrite) as folder:
            if resumed is None:
                self._measure(folder)
            elif out is None:
                folder.log_again(self.history)
                self._logged = len(self.history.events)
            else:
                raise ConfigurationError(f"a run that is gone on with stays in {folder.path}: call go()")
            try:
                self._train(folder, observe)
            except DivergenceError as error:
                self._close(folder, "diverged")
                raise DivergenceError(f"{error}; the last good state is in {folder.path}") from error
            done = self.trainer.updates == self.progress.cycles
            result = self._close(folder, "finished" if done else "stopped")
        observe(self.progress)
        return result

    def close(self) -> None:
        """Let go of the folder of a run that was to be gone on with, and is not."""
        if self._resumed is not None:
            self._resumed.close()
            self._resumed = None

    def stop(self) -> None:
        """End the run after the present step, and save everything; may be called by a signal handler."""
        self._stopping = True

    def _train(self, folder: RunFolder, observe: Callable[[Progress], None]) -> None:
        # A row at least every 1,000 steps, and enough of them for a figure of a short run.
        every = max(1, min(1000, self.progress.cycles // 200))
        trainer, progress = self.trainer, self.progress
        self._save(folder)
        observe(progress)
        trainer.prepare()
        saved = told = time.perf_counter()
        begin = saved - progress.seconds
        while trainer.updates < progress.cycles and not self._stopping:
            until = min(every - trainer.updates % every, progress.cycles - trainer.updates)
            trainer.advance(self.reader.take(min(until, trainer.stride)))
            now = time.perf_counter()
            progress.seconds = now - begin
            if trainer.updates % every == 0:
                self._measure(folder)
                if now - saved > SAVE_EVERY:
                    self._save(folder)
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
        folder.append(self.history, events[self._logged :])
        self._logged = len(events)
        weights = self._weights()
        if all(bool(value.isfinite().all()) for value in weights.values()):
            self._good = weights

    def _weights(self) -> dict[str, Tensor]:
        return {key: value.clone() for key, value in self.trainer.model.state_dict().items()}

    def _save(self, folder: RunFolder) -> None:
        """Save a run that is not over: all that it needs to be gone on with, then what it has come to."""
        folder.save_state(self._state())
        folder.save(summary(self.settings, self.progress, "running"), self._weights())

    def _close(self, folder: RunFolder, status: str) -> dict[str, Any]:
        """Measure the last steps if that is still to be done, and save everything."""
        from diffstruct.paper.figures.run import draw_run  # Matplotlib: only where a figure is drawn

        if status == "stopped":
            # Before the row of the step that it stopped at, which a run without interruption does not have.
            folder.save_state(self._state())
        if self.history.measurements[-1].update < self.trainer.updates:
            self._measure(folder)
        result = summary(self.settings, self.progress, status)
        folder.replace("units.png", draw_run(title(result), self.history.measurements, self.progress.phases))
        folder.save(result, self._good)
        if status != "stopped":
            folder.forget_state()
        return result

    def _state(self) -> dict[str, Any]:
        """All that the rest of the run depends on, and what it has come to."""
        return {
            "settings": self.settings.plain(),
            "made_with": made_with(type(self.trainer).__name__),
            "trainer": self.trainer.state_dict(),
            "reader": self.reader.state_dict(),
            "good": self._good,
            "seconds": self.progress.seconds,
        }
