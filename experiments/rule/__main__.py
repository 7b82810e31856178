"""The rule's evidence, every number of it: `python experiments/rule --help`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from grid import QUICK, Setting, settings
from report import write

sys.path.insert(0, str(Path(__file__).parents[1]))
from sweep import Options, Record, complete, load

Job = tuple[Setting, int]
"""A setting and a seed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the missing runs, and write tables and figures of all that are finished; 1 if a run failed."""
    every = [*settings()]
    options = Options(
        Path(__file__).parent,
        "The evidence for the rule: all runs, tables and figures.",
        (study_of(setting) for setting in every),
        seeds="at most so many of each setting",
        quick=f"runs {QUICK} times shorter, one seed",
    ).read(arguments)
    chosen = [
        (setting, seed)
        for seed in range(max(setting.seeds for setting in every))
        for setting in every
        if study_of(setting) in options.study and seed < min(setting.seeds, options.seeds or setting.seeds)
    ]
    make = partial(train, QUICK if options.quick else 1)
    _, failed = complete(make, options.out, {job: file_of(job) for job in chosen}, options.jobs)
    jobs = {(setting, seed): file_of((setting, seed)) for setting in every for seed in range(setting.seeds)}
    results: dict[Setting, list[Record]] = {}
    for (setting, _), record in load(options.out, jobs).items():
        results.setdefault(setting, []).append(record)
    write(options.out, results)
    return 1 if failed else 0


def study_of(setting: Setting) -> str:
    """The name by which the setting's study is asked for."""
    return setting.study.split(":")[0]


def file_of(job: Job) -> Path:
    """The job's file in the folder of results."""
    setting, seed = job
    name = "".join(c if c.isalnum() or c in ".-" else "_" for c in f"{setting.study}--{setting.name}")
    return Path("runs", f"{name}--{seed}.json")


def train(shorter: int, job: Job) -> dict[str, Any]:
    """Make the run of a job, so many times shorter than usual."""
    setting, seed = job
    begin = time.monotonic()
    return {**setting.run(seed, shorter), "seconds": time.monotonic() - begin}


if __name__ == "__main__":
    sys.exit(main())
