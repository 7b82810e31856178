"""Residual networks with everything learned, beside grids: `python experiments/residual --help`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path += [str(FOLDER.parent), str(FOLDER.parent / "widths")]

from report import report, summary_of  # noqa: E402
from studies import STUDIES  # noqa: E402
from sweep import Options, complete  # noqa: E402
from train import Job, train  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the missing runs and write the tables; 1 if a run failed."""
    parser = Options(
        FOLDER,
        "Residual networks with stream, inner widths and blocks learned, beside grids of uniform shapes.",
        STUDIES,
        seeds="of each budget (default: 3)",
        quick="two epochs of some runs, to see that it works",
    )
    options = parser.read(arguments)
    jobs = [*jobs_of(options.study, options.seeds or 3, options.quick)]
    runs, failed = complete(train, options.out, {job: job.file for job in jobs}, options.jobs)
    if not failed:
        summary = summary_of(runs)
        (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        (options.out / "RESULTS.md").write_text(report(summary))
        print(f"wrote {options.out / 'RESULTS.md'}")
    return int(failed)


def jobs_of(names: Sequence[str], seeds: int, quick: bool) -> Iterator[Job]:
    """From small budgets to large, the learned models first; quickly tried, one budget and two shapes."""
    for size in range(1 if quick else 3):
        budgets = {name: [*STUDIES[name].streams][size] for name in names}
        for name, budget in budgets.items():
            for seed in range(seeds):
                yield Job(name, budget, None, seed, quick)
        for name, budget in budgets.items():
            for seed in range(seeds):
                for shape in [*STUDIES[name].grid(budget)][: 2 if quick else None]:
                    yield Job(name, budget, shape, seed, quick)


if __name__ == "__main__":
    sys.exit(main())
