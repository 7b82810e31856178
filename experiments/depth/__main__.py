"""Depth follows need: `python experiments/depth --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from report import report
from train import train

sys.path.insert(0, str(Path(__file__).parents[1]))
from sweep import Options, complete, load

SEEDS, MAPS, QUICK = 3, (1, 2, 3, 4, 5, 6), 30

Job = tuple[int, str, int]
"""Maps, how the network is trained, and the seed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the missing runs, and write the table of all that are finished; 1 if a run failed."""
    options = Options(
        Path(__file__).parent,
        "Networks that learn how many blocks they have, on tasks of known depth.",
        ("learned", "fixed"),
        seeds=f"of each task (default: {SEEDS})",
        quick=f"{QUICK} times shorter",
    ).read(arguments)
    seeds = range(options.seeds or SEEDS)
    jobs = [(maps, how, seed) for how in options.study for seed in seeds for maps in MAPS]
    make = partial(run, QUICK if options.quick else 1)
    _, failed = complete(make, options.out, {job: file_of(job) for job in jobs}, options.jobs)
    every = [(maps, how, seed) for how in ("learned", "fixed") for seed in seeds for maps in MAPS]
    runs = load(options.out, {job: file_of(job) for job in every})
    (options.out / "RESULTS.md").write_text("\n".join(report(runs)) + "\n")
    print(f"wrote {options.out / 'RESULTS.md'}")
    return 1 if failed else 0


def run(shorter: int, job: Job) -> dict[str, Any]:
    """Make the run of a job, so many times shorter."""
    return train(*job, shorter)


def file_of(job: Job) -> Path:
    """The job's file in the folder of results."""
    maps, how, seed = job
    return Path("runs", f"{maps}--{how}--{seed}.json")


if __name__ == "__main__":
    sys.exit(main())
