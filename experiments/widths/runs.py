"""The runs of a study: one model each."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from studies import STUDIES
from task import Study, Way
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
        way: how the model comes by its sizes.
        seed: of everything that is drawn.
        quick: only to see that it works.
    """

    study: str
    way: Way
    seed: int
    quick: bool = False

    @property
    def file(self) -> Path:
        """Where the run is kept, in the folder of results."""
        return Path(
            "runs", f"{self.study}{'-quick' * self.quick}", str(self.way), f"seed-{self.seed:03}.json"
        )


def jobs_of(studies: Collection[Study], seeds: int | None, quick: bool) -> Iterator[Job]:
    """Every run: small studies first, then language models; seed by seed, so that those begun are whole."""
    for language in (False, True):
        some = [study for study in studies if study.language == language]
        for seed in range(max((seeds or study.seeds for study in some), default=0)):
            for study in some:
                yield from (Job(study.name, way, seed, quick) for way in study.ways(quick))


def make(job: Job) -> Run:
    """Train the model of a job."""
    run = train(STUDIES[job.study], job.way, job.seed, job.quick)
    return {**run, "library": fingerprint()} if job.way.how == "learned" else run


def valid(job: Job, run: Run) -> bool:
    """Whether the present library would give the same run."""
    return job.way.how != "learned" or bool(run["library"] == fingerprint())
