"""The best uniform shapes beside learned ones, on seeds that they were not chosen by.

The best shape of twelve is partly lucky on the seeds that it is the best on.
`python experiments/residual/afresh.py` trains it, and learned networks, on others: splits of the data,
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


def main() -> int:
    """Make the missing runs, of the budgets that have a grid, and write the table; 1 if a run failed."""
    summary = json.loads((FOLDER / "summary.json").read_text())
    best = {}
    for size, name in product(range(3), summary):
        for budget in [*summary[name]][size : size + 1]:
            uniform = summary[name][budget]["uniform"]
            stream, _, blocks = uniform[best_uniform(uniform)][0]["shape"]
            best[name, int(budget)] = stream, blocks
    runs: dict[Job, Record] = {}
    for (name, budget), shape in best.items():
        seeds = STUDIES[name].others
        jobs = [Job(name, budget, way, seed) for seed, way in product(seeds, (None, shape))]
        made, failed = complete(train, FOLDER, {job: job.file for job in jobs}, workers=2)
        if failed:
            return 1
        runs |= made
        errors = {
            f"{name} {budget}": {
                "shape": shape,
                "learned": [runs[Job(name, budget, None, seed)]["error"] for seed in STUDIES[name].others],
                "uniform": [runs[Job(name, budget, shape, seed)]["error"] for seed in STUDIES[name].others],
            }
            for (name, budget), shape in best.items()
            if Job(name, budget, None, STUDIES[name].others[0]) in runs
        }
        (FOLDER / "afresh.json").write_text(json.dumps(errors, indent=1) + "\n")
        (FOLDER / "AFRESH.md").write_text("\n".join(table(errors)) + "\n")
    return 0


def table(errors: Mapping[str, Mapping[str, list[float]]]) -> Iterator[str]:
    """In Markdown: means over seeds, and by how much learned ones differ, with its standard error."""
    yield "# On seeds by which no shape was chosen"
    yield ""
    yield "Means over seeds. The ratio is of means; better, as bad or worse by seed."
    yield ""
    yield (
        "| study, parameters | uniform: stream, blocks | seeds | error | learned | ratio | difference | "
        "by seed |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    ratios = []
    for what, ways in errors.items():
        study = STUDIES[what.split()[0]]
        style, seeds = study.style, f"{study.others[0]}–{study.others[-1]}"
        ours, theirs = ways["learned"], ways["uniform"]
        ratio, told = paired(ours, theirs, style)
        ratios.append(ratio)
        shape = ", ".join(map(str, ways["shape"]))
        yield f"| {what} | {shape} | {seeds} | {mean(theirs):{style}} | {mean(ours):{style}} | {told} |"
    yield f"| **geometric mean** | | | | | **{geometric_mean(ratios):.3f}** | | |"


if __name__ == "__main__":
    sys.exit(main())
