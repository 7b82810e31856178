"""Many runs side by side, each kept in a file of its own as soon as it is finished."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import joblib
from studies import STUDIES
from task import Size, Study
from train import train

import diffstruct
from diffstruct.paper.run_folder import replace_file

Run = dict[str, Any]


@cache
def fingerprint() -> str:
    """Of the library's sources: a model that another version has learned counts as none."""
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


def attempt(job: Job) -> tuple[Job, Run | str, float]:
    """Train; an error comes back as a text, so that one run does not end the others."""
    start = time.perf_counter()
    outcome: Run | str
    try:
        run = train(STUDIES[job.study], job.size, job.seed, job.quick)
        outcome = run if job.size is not None else {**run, "library": fingerprint()}
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    return job, outcome, time.perf_counter() - start


def _found(job: Job, out: Path) -> Run | None:
    """The run of a job, if the folder has it."""
    if not (out / job.file).exists():
        return None
    run: Run = json.loads((out / job.file).read_bytes())
    return run if job.size is not None or run["library"] == fingerprint() else None


def run_all(jobs: Iterable[Job], out: Path, workers: int) -> tuple[dict[Job, Run], dict[Job, str]]:
    """Run what is not in the folder yet; return every run, and the errors of those that failed."""
    jobs = [*jobs]
    results = {job: run for job in jobs if (run := _found(job, out)) is not None}
    failures: dict[Job, str] = {}
    left = [job for job in jobs if job not in results]
    print(f"{len(left)} runs to do, {len(results)} found in {out / 'runs'}", flush=True)
    pool = joblib.Parallel(n_jobs=workers, return_as="generator_unordered")
    for job, outcome, seconds in pool(joblib.delayed(attempt)(job) for job in left):
        if isinstance(outcome, str):
            failures[job] = outcome
        else:
            results[job] = outcome
            target = out / job.file
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, json.dumps(outcome).encode() + b"\n")
        told = outcome if isinstance(outcome, str) else f"{outcome['scores']}, units {outcome['units']}"
        print(f"{job.file.with_suffix('')}: {seconds:.1f} s, {told}", flush=True)
    return results, failures
