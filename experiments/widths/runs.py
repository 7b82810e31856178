"""The runs of a study: one model each, of a fixed size or of learned widths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from studies import STUDIES
from task import Size, Study
from train import train

import diffstruct

Run = dict[str, Any]


@cache
def fingerprint() -> str:
    """A hash of the library's sources: widths that another version has learned are learned again."""
    root = Path(diffstruct.__file__).parent
    contents = (file.read_bytes() for file in sorted(root.rglob("*.py")))
    return hashlib.sha256(b"\0".join(contents)).hexdigest()[:16]


@dataclass(frozen=True)
class Job:
    """One model to train.

    Args:
        study: its name.
        size: the fixed size; None to learn it.
        seed: of everything that is drawn.
        quick: only to see that it works.
    """

    study: str
    size: Size | None
    seed: int
    quick: bool = False

    @property
    def file(self) -> Path:
        """Where the run is kept, in the folder of results."""
        size = "learned" if self.size is None else "-".join(map(str, self.size))
        return Path("runs", f"{self.study}{'-quick' * self.quick}", size, f"seed-{self.seed:03}.json")


def jobs_of(study: Study, seeds: int, quick: bool) -> Iterator[Job]:
    """Every run of a study; a seed's sizes stand together, so that a slow hour slows all of them."""
    sizes = study.sizes[:2] if quick else study.sizes
    for seed in range(seeds):
        for size in (None, *sizes):
            yield Job(study.name, size, seed, quick)


def make(job: Job) -> Run:
    """Train the model of a job."""
    run = train(STUDIES[job.study], job.size, job.seed, job.quick)
    return run if job.size is not None else {**run, "library": fingerprint()}


def valid(job: Job, run: Run) -> bool:
    """Whether the present library would give the same run."""
    return job.size is not None or bool(run["library"] == fingerprint())
