"""Residual networks with everything learned, beside grids: `python experiments/residual --help`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path += [str(FOLDER.parent), str(FOLDER.parent / "widths")]

from report import report, summary_of  # noqa: E402
from studies import STUDIES  # noqa: E402
from sweep import Options, Record, complete  # noqa: E402
from train import Job, train  # noqa: E402

SIZES = range(3)
"""Of budgets, from small to large; for each all studies."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the missing runs, and write the tables after each study and budget; 1 if a run failed."""
    parser = Options(
        FOLDER,
        "Residual networks with stream, inner widths and blocks learned, beside grids of uniform shapes.",
        STUDIES,
        seeds="of each budget (default: 10; 3 of the CNN, which takes longest)",
        quick="two epochs of some runs of the smallest budgets, to see that it works",
    )
    options = parser.read(arguments)
    runs: dict[Job, Record] = {}
    for size, name in product(SIZES[: 1 if options.quick else None], options.study):
        jobs = [*jobs_of(name, size, options.seeds or STUDIES[name].seeds, options.quick)]
        made, failed = complete(train, options.out, {job: job.file for job in jobs}, options.jobs)
        if failed:
            return 1
        runs |= made
        summary = summary_of(runs)
        (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        (options.out / "RESULTS.md").write_text(report(summary))
        print(f"wrote {options.out / 'RESULTS.md'}")
    return 0


def jobs_of(name: str, size: int, seeds: int, quick: bool = False) -> Iterator[Job]:
    """All runs of a study's budget of that size: learned models, then the grid; quickly tried, two shapes."""
    study = STUDIES[name]
    budget = [*study.streams][size]
    for seed in range(seeds):
        yield Job(name, budget, None, seed, quick)
    for seed in range(seeds):
        for shape in [*study.grid(budget)][: 2 if quick else None]:
            yield Job(name, budget, shape, seed, quick)


if __name__ == "__main__":
    sys.exit(main())
