"""The cells in which learned widths fell behind, on seeds that did not choose them.

Of hundreds of cells with two seeds each, the worst are partly those of the worst luck: batches in another
order make fixed widths as bad. `python experiments/robust/afresh.py` trains them on seven other seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.append(str(FOLDER.parent))

from cells import Cell  # noqa: E402
from report import HOW, counted, size, table, won  # noqa: E402
from summary import Runs, as_text, runs_of  # noqa: E402
from sweep import complete, load  # noqa: E402
from train import Job, file_of, train  # noqa: E402

SEEDS = range(2, 9)
BEHIND = 0.95
"""Cells that win less than that of what the fixed widths win are looked at again."""


def main() -> int:
    """Make the missing runs of the cells that are behind in `summary.json`; 1 if a run failed."""
    before = runs_of((FOLDER / "summary.json").read_text())
    ways = ("fixed", *HOW)
    jobs: list[Job] = [(cell, how, seed) for cell in behind(before) for how, seed in product(ways, SEEDS)]
    _, failed = complete(_run, FOLDER, {job: file_of(job) for job in jobs}, workers=2)
    runs: dict[Cell, dict[str, list[dict[str, object]]]] = {}
    for (cell, how, _), record in load(FOLDER, {job: file_of(job) for job in jobs}).items():
        runs.setdefault(cell, {}).setdefault(how, []).append(record)
    (FOLDER / "afresh.json").write_text(as_text(runs))
    (FOLDER / "AFRESH.md").write_text("\n".join(page(before, runs)))
    return 1 if failed else 0


def behind(runs: Runs) -> dict[Cell, list[str]]:
    """In which cells, and from which start, learned widths are behind; the worst first."""
    share = {
        (cell, how): won(some[how]) / won(some["fixed"])
        for (cell, some), how in product(counted(runs).items(), HOW)
        if how != "again"
    }
    found: dict[Cell, list[str]] = {}
    for cell, how in sorted(share, key=lambda each: share[each]):
        if share[cell, how] < BEHIND:
            found.setdefault(cell, []).append(how)
    return found


def page(before: Runs, runs: Runs) -> Iterator[str]:
    """A page: what these cells win on the seeds by which they were found, and on others."""
    cells = behind(before)
    yield f"# The cells that fell behind, on seeds {SEEDS[0]} to {SEEDS[-1]}\n"
    yield (
        "Written by `python experiments/robust/afresh.py`: every cell in which learned widths won less than "
        f"{BEHIND:.0%} of what the fixed ones won, on the seeds by which it was found, and on {len(SEEDS)} "
        "others. Medians over seeds; shares are of what the fixed widths win.\n"
    )
    rows, summary = [], []
    for how in ("own", "one"):
        some = [cell for cell, ways in cells.items() if how in ways]
        if not some:
            continue
        shares = {}
        for cell in some:
            old, new = before[cell], runs[cell]
            shares[cell] = won(new[how]) / won(new["fixed"])
            rows.append(
                [
                    HOW[how].removeprefix("learned, "),
                    str(cell),
                    f"{won(old[how]) / won(old['fixed']):.0%}",
                    f"{won(new['fixed']):.3f}",
                    f"{won(new['again']) / won(new['fixed']):.0%}",
                    f"{shares[cell]:.0%}",
                    f"{size(new[how]):.0%}",
                ]
            )
        reached = sum(share >= BEHIND for share in shares.values())
        summary.append(
            f"{HOW[how].capitalize()}: {len(some)} cells, of which {reached} win {BEHIND:.0%} or more on "
            f"other seeds; the worst wins {min(shares.values()):.0%}.\n"
        )
    yield from summary
    head = [
        "start",
        "cell",
        "learned, there",
        "fixed wins",
        "with other batches",
        "learned",
        "parameters left",
    ]
    yield table(head, rows)


def _run(job: Job) -> Mapping[str, object]:
    return train(*job)


if __name__ == "__main__":
    sys.exit(main())
