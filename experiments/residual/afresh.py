"""The best uniform shapes beside learned ones, on seeds that they were not chosen by.

A shape that is the best of twelve on three seeds is partly lucky on these.
`python experiments/residual/afresh.py` trains it, and learned networks, on seven others: splits of the data,
weights and batches.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from statistics import geometric_mean, mean

FOLDER = Path(__file__).parent
sys.path += [str(FOLDER.parent), str(FOLDER.parent / "widths")]

from report import best_uniform, paired  # noqa: E402
from studies import STUDIES  # noqa: E402
from sweep import Record, complete  # noqa: E402
from train import Job, train  # noqa: E402

SEEDS = range(3, 10)
"""Those before them chose the shapes."""


def main() -> int:
    """Make the missing runs, of the budgets that have a grid, and write the table; 1 if a run failed."""
    summary = json.loads((FOLDER / "summary.json").read_text())
    best = {}
    for size, name in product(range(3), summary):
        for budget in [*summary[name]][size : size + 1]:
            every = summary[name][budget]["uniform"]
            uniform = {shape: runs[: SEEDS[0]] for shape, runs in every.items()}
            stream, _, blocks = uniform[best_uniform(uniform)][0]["shape"]
            best[name, int(budget)] = stream, blocks
    runs: dict[Job, Record] = {}
    for (name, budget), shape in best.items():
        jobs = [Job(name, budget, way, seed) for seed, way in product(SEEDS, (None, shape))]
        made, failed = complete(train, FOLDER, {job: job.file for job in jobs}, workers=1)
        if failed:
            return 1
        runs |= made
        errors = {
            f"{name} {budget}": {
                "shape": shape,
                "learned": [runs[Job(name, budget, None, seed)]["error"] for seed in SEEDS],
                "uniform": [runs[Job(name, budget, shape, seed)]["error"] for seed in SEEDS],
            }
            for (name, budget), shape in best.items()
            if Job(name, budget, None, SEEDS[0]) in runs
        }
        (FOLDER / "afresh.json").write_text(json.dumps(errors, indent=1) + "\n")
        (FOLDER / "AFRESH.md").write_text("\n".join(table(errors)) + "\n")
    return 0


def table(errors: Mapping[str, Mapping[str, list[float]]]) -> Iterator[str]:
    """In Markdown: means over seeds, and by how much learned ones differ, with its standard error."""
    yield f"# On seeds {SEEDS[0]} to {SEEDS[-1]}, by which no shape was chosen"
    yield ""
    yield "Means over seeds. The ratio is of means; better, as bad or worse by seed."
    yield ""
    yield "| study, parameters | uniform: stream, blocks | error | learned | ratio | difference | by seed |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    ratios = []
    for what, ways in errors.items():
        style = STUDIES[what.split()[0]].style
        ours, theirs = ways["learned"], ways["uniform"]
        ratio, told = paired(ours, theirs, style)
        ratios.append(ratio)
        shape = ", ".join(map(str, ways["shape"]))
        yield f"| {what} | {shape} | {mean(theirs):{style}} | {mean(ours):{style}} | {told} |"
    yield f"| **geometric mean** | | | | **{geometric_mean(ratios):.3f}** | | |"


if __name__ == "__main__":
    sys.exit(main())
