"""Wherever a fixed width learns, the learned width learns: `python experiments/robust --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cells import Cell, cells
from figure import draw
from report import HOW, report
from summary import as_text, runs_of
from train import Job, file_of, train

sys.path.insert(0, str(Path(__file__).parents[1]))
from sweep import Options, complete, load

SEEDS, SEEDS_OF_FAMILIES = 2, 6
"""Of the hundreds of cells, and of the few in which one thing is turned."""

QUICK_CELLS, QUICK = 12, 10
"""Cells of a quick run, and how many times shorter they are."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the missing runs, and write tables and figure of all that are finished; 1 if a run failed."""
    every = [*cells()]
    options = Options(
        Path(__file__).parent,
        "Learned beside fixed widths, over networks, optimizers, losses and data that nobody tuned on.",
        (cell.study for cell in every),
        seeds=f"medians are over them (default: {SEEDS}; {SEEDS_OF_FAMILIES} of the families)",
        quick=f"{QUICK_CELLS} cells, {QUICK} times shorter",
    ).read(arguments)
    chosen = [cell for cell in every if cell.study in options.study]
    chosen = chosen[:QUICK_CELLS] if options.quick else chosen
    seeds = {
        cell: options.seeds or (SEEDS if cell.study == "drawn" else SEEDS_OF_FAMILIES) for cell in chosen
    }
    jobs = [
        (cell, how, seed)
        for seed in range(max(seeds.values()))
        for cell in chosen
        if seed < seeds[cell]
        for how in ("fixed", *HOW)
    ]
    make = partial(run, QUICK if options.quick else 1)
    _, failed = complete(make, options.out, {job: file_of(job) for job in jobs}, options.jobs)
    runs: dict[Cell, dict[str, list[dict[str, Any]]]] = {}
    for (cell, how, _), record in load(options.out, {job: file_of(job) for job in jobs}).items():
        runs.setdefault(cell, {}).setdefault(how, []).append(record)
    if runs:
        text = as_text({cell: runs[cell] for cell in chosen if cell in runs})
        (options.out / "summary.json").write_text(text)
        (options.out / "RESULTS.md").write_text("\n".join(report(runs_of(text))))
        (options.out / "figure.png").write_bytes(draw(runs_of(text)))
        print(f"wrote {options.out / 'RESULTS.md'}, summary.json and figure.png")
    return 1 if failed else 0


def run(shorter: int, job: Job) -> dict[str, Any]:
    """Make the run of a job, so many times shorter."""
    return train(*job, shorter)


if __name__ == "__main__":
    sys.exit(main())
