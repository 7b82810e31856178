"""A whole shape, learned, beside a grid of uniform shapes: `python experiments/shapes --help`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

FOLDER = Path(__file__).parent
sys.path += [str(FOLDER.parent), str(FOLDER.parent / "widths")]

from shapes import Shape, uniform_shapes  # noqa: E402
from sweep import Options, complete  # noqa: E402
from train import Job, train  # noqa: E402

BUDGETS = {"small": 83_616, "medium": 125_424, "large": 167_232}
"""Parameters: a quarter, three eighths and a half of the transformer of `experiments/widths`."""

Runs = Mapping[Job, Mapping[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the missing runs and write the table; 1 if a run failed."""
    options = Options(
        FOLDER,
        "A transformer's whole shape, learned, beside a grid of uniform shapes.",
        BUDGETS,
        seeds="of each budget (default: 3)",
        quick="a few updates of some runs, to see that it works",
    ).read(arguments)
    jobs = [
        job
        for seed in range(options.seeds or 3)
        for name in options.study
        for job in jobs_of(BUDGETS[name], seed, options.quick)
    ]
    runs, failed = complete(train, options.out, {job: job.file for job in jobs}, options.jobs)
    if not failed:
        (options.out / "RESULTS.md").write_text(report(runs))
        print(f"wrote {options.out / 'RESULTS.md'}")
    return int(failed)


def jobs_of(budget: int, seed: int, quick: bool) -> Iterator[Job]:
    """The learned model, and the grid; of a quick run two shapes of that."""
    yield Job(budget, None, seed, quick)
    for shape in [*uniform_shapes(budget)][: 2 if quick else None]:
        yield Job(budget, shape, seed, quick)


def report(runs: Runs) -> str:
    """The tables, in Markdown."""
    lines = ["# A transformer's shape, learned, beside uniform shapes", ""]
    for budget in dict.fromkeys(job.budget for job in runs):
        own = {job: run for job, run in runs.items() if job.budget == budget}
        lines += [f"## At most {budget:,} parameters", "", *table(own), ""]
    return "\n".join(lines)


def table(runs: Runs) -> Iterator[str]:
    """Medians over seeds, of the learned model first, then of uniform shapes from the best on."""
    by_shape: dict[Shape | None, list[Mapping[str, Any]]] = {}
    for job, run in runs.items():
        by_shape.setdefault(job.shape, []).append(run)
    bits = {shape: median(run["bits"] for run in some) for shape, some in by_shape.items()}
    learned = bits.pop(None)
    best = min(bits, key=bits.__getitem__)
    seeds = len(by_shape[None])
    apart = f"{learned / bits[best] - 1:+.1%} against the best uniform shape"
    yield f"{seeds} seed{'s' * (seeds > 1)}. Learned: {apart}."
    yield ""
    yield "| shape | parameters | bits per byte | against learned |"
    yield "| --- | --- | --- | --- |"
    for run in by_shape[None]:
        sizes = ", ".join(f"`{name}` {size}" for name, size in run["sizes"].items())
        yield f"| learned: {sizes} | {run['parameters']:,} | {run['bits']:.3f} | |"
    for shape in sorted(bits, key=bits.__getitem__):
        parameters = by_shape[shape][0]["parameters"]
        yield f"| {shape} | {parameters:,} | {bits[shape]:.3f} | {bits[shape] / learned - 1:+.1%} |"


if __name__ == "__main__":
    sys.exit(main())
