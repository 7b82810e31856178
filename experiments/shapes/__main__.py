"""A whole shape, learned, beside a grid of uniform shapes: `python experiments/shapes --help`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path += [str(FOLDER.parent), str(FOLDER.parent / "widths")]

from figure import draw  # noqa: E402
from report import report, summary_of  # noqa: E402
from shapes import Shape, uniform_shapes  # noqa: E402
from sweep import Options, complete  # noqa: E402
from together import train_uniform  # noqa: E402
from train import DEPTH, WIDTHS, Job, train  # noqa: E402

BUDGETS = {"small": 83_616, "medium": 125_424, "large": 167_232}
"""Parameters: a quarter, three eighths and a half of the transformer of `experiments/widths`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the missing runs and write table and figure; 1 if a run failed."""
    parser = Options(
        FOLDER,
        "A transformer's whole shape, learned, beside a grid of uniform shapes.",
        BUDGETS,
        seeds="of each budget (default: 3)",
        quick="a few updates of some runs, to see that it works",
    )
    parser.add_argument("--device", default="cpu", help="cpu (the default) or cuda")
    options = parser.read(arguments)
    jobs = [
        job
        for seed in range(options.seeds or 3)
        for name in options.study
        for job in jobs_of(BUDGETS[name], seed, options.quick)
    ]
    files = {job: job.file for job in jobs}
    if options.device == "cuda":
        missing = [
            job for job in jobs if isinstance(job.shape, Shape) and not (options.out / job.file).exists()
        ]
        train_uniform(missing, options.out)
    runs, failed = complete(partial(train, device=options.device), options.out, files, options.jobs)
    if not failed:
        summary = summary_of(runs)
        (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        (options.out / "RESULTS.md").write_text(report(summary))
        (options.out / "figure.png").write_bytes(draw(summary))
        print(f"wrote {options.out / 'RESULTS.md'}")
    return int(failed)


def jobs_of(budget: int, seed: int, quick: bool) -> Iterator[Job]:
    """The learned models, and the grid; of a quick run two shapes of that."""
    for learned in (WIDTHS, DEPTH):
        yield Job(budget, learned, seed, quick)
    for shape in [*uniform_shapes(budget)][: 2 if quick else None]:
        yield Job(budget, shape, seed, quick)


if __name__ == "__main__":
    sys.exit(main())
