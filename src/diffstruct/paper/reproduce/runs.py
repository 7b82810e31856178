"""One run of the grid: train a network, return its curve."""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch

from diffstruct.errors import DivergenceError
from diffstruct.paper.reproduce.settings import Job, Setting, phases, points
from diffstruct.paper.revisions import get_revision
from diffstruct.paper.run import fastest_trainer
from diffstruct.paper.seeds import split_seed
from diffstruct.paper.tasks import BRACKETS, Reader
from diffstruct.structure import Measurement
from diffstruct.version import installed_version

_PARENT = os.getppid()


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Args:
        job: what was run.
        curve: the measurements at `settings.points(job)`; loss smoothed, in nats per 40 characters.
        added: number of units added.
        removed: number of units removed.
        seconds: duration, without compilation.
        machine: processor and number of cores.
        versions: package versions, by name.
    """

    job: Job
    curve: tuple[Measurement, ...]
    added: int
    removed: int
    seconds: float
    machine: str
    versions: dict[str, str]

    @property
    def last(self) -> Measurement:
        """The state at the end."""
        return self.curve[-1]

    def at(self, step: int) -> Measurement:
        """The state after `step`, one of `settings.points(job)`."""
        return next(measurement for measurement in self.curve if measurement.update == step)


def train(job: Job) -> Result:
    """Train the network of one job, as `diffstruct grow` would with the same seed.

    Raises:
        DivergenceError: the loss became infinite or not a number.
    """
    # The runs share the cores, and one thread adds up in one order wherever it runs.
    torch.set_num_threads(1)
    network_seed, text_seed = split_seed(job.seed)
    revision = get_revision(job.setting.revision)
    trainer = fastest_trainer()(revision, len(BRACKETS), network_seed, job.setting.fixed_units)
    reader = Reader(phases(job), torch.Generator().manual_seed(text_seed))
    trainer.prepare()
    begin = time.perf_counter()
    curve = []
    for step in points(job):
        while trainer.updates < step:
            trainer.advance(reader.take(step - trainer.updates))
        _end_if_orphaned()
        if not np.isfinite(trainer.smoothed):
            raise DivergenceError(f"the loss is {trainer.smoothed} by step {step}: the weights have diverged")
        curve.append(Measurement(step, trainer.smoothed, trainer.units))
    return Result(
        job,
        tuple(curve),
        trainer.history.added(),
        trainer.history.removed(),
        time.perf_counter() - begin,
        machine(),
        versions(),
    )


def _end_if_orphaned() -> None:
    """End a worker process whose parent was killed, as its results would be lost."""
    if multiprocessing.parent_process() is not None and os.getppid() != _PARENT:
        os._exit(1)


def to_record(result: Result) -> dict[str, Any]:
    """A result as JSON can hold it; `from_record` gives it back, bit for bit."""
    return {
        **asdict(result.job.setting),
        "seed": result.job.seed,
        "cycles": result.job.cycles,
        "final_loss": result.last.loss,
        "final_units": result.last.units,
        "units_added": result.added,
        "units_removed": result.removed,
        "seconds": result.seconds,
        "machine": result.machine,
        "versions": result.versions,
        "curve": {
            "cycle": [measurement.update for measurement in result.curve],
            "loss": [measurement.loss for measurement in result.curve],
            "units": [measurement.units for measurement in result.curve],
        },
    }


def from_record(record: dict[str, Any]) -> Result:
    """The result of which `record` was made.

    Raises:
        KeyError, TypeError, ValueError: `record` is not a whole record.
    """
    setting = Setting(record["revision"], record["task"], record["fixed_units"])
    job = Job(setting, int(record["seed"]), int(record["cycles"]))
    curve = record["curve"]
    result = Result(
        job,
        tuple(map(Measurement, curve["cycle"], map(float, curve["loss"]), map(int, curve["units"]))),
        int(record["units_added"]),
        int(record["units_removed"]),
        float(record["seconds"]),
        str(record["machine"]),
        dict(record["versions"]),
    )
    if tuple(measurement.update for measurement in result.curve) != points(job):
        raise ValueError("its curve has other points than a run of its cycles")
    if not all(np.isfinite(m.loss) and m.units >= 1 for m in result.curve):
        raise ValueError("its curve holds what no run can give")
    return result


def versions() -> dict[str, str]:
    """Versions of the packages that decide a run's numbers."""
    others = {name: version(name) for name in ("torch", "numpy")}
    return {"diffstruct": installed_version(), **others, "python": platform.python_version()}


def machine() -> str:
    """The processor's name and the number of cores that this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass  # not Linux
    cores = joblib.cpu_count()
    return f"{name}, {cores} core{'s' if cores > 1 else ''}"
