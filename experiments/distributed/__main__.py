"""Many processes beside one: `python experiments/distributed --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from train import train

HERE = Path(__file__).parent
RUNS = {
    "widths": [("ddp", 2), ("ddp", 4), ("shards", 2), ("shards", 4)],
    "blocks": [("ddp", 2), ("ddp", 4), ("shards", 2), ("shards", 4)],
}
NAMES = {"ddp": "DistributedDataParallel", "shards": "fully_shard"}
ABOUT = (
    "{steps} steps in double precision, gloo on one machine. *Alike*: events and weights of all ranks, bit "
    "for bit. *As one*: the same events as one process with the whole batch, and the largest difference of "
    "any weight at the end. Seconds are those of `structure.step()` where something changed, and on average "
    "elsewhere."
)
COLUMNS = ["", "ranks", "events", "units added", "removed", "alike", "as one", "loss (one process)"]
COLUMNS += ["s an event", "s another step"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make all runs, and write the table; 1 if ranks have come to different structures."""
    parser = argparse.ArgumentParser(prog="python experiments/distributed", description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="of each run (default: 1000)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the table (default: where this is)")
    options = parser.parse_args(arguments)
    rows, good = [], True
    for study, runs in RUNS.items():
        (one,) = train(study, "one", 1, options.steps)
        for wrapper, count in runs:
            ranks = train(study, wrapper, count, options.steps)
            alike = all(_alike(rank, ranks[0]) for rank in ranks)
            good &= alike
            rows.append(_row(f"{study}, {NAMES[wrapper]}", ranks, one, alike))
            print(rows[-1], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    table = [_line(COLUMNS), _line(["---"] * len(COLUMNS)), *rows]
    parts = "# Many processes beside one", ABOUT.format(steps=f"{options.steps:,}"), "\n".join(table)
    (options.out / "RESULTS.md").write_text("\n\n".join(parts) + "\n")
    return 0 if good else 1


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    weights = one["weights"], other["weights"]
    return one["events"] == other["events"] and all(
        torch.equal(each, weights[1][name]) for name, each in weights[0].items()
    )


def _row(name: str, ranks: Sequence[dict[str, Any]], one: dict[str, Any], alike: bool) -> str:
    first = ranks[0]
    added = sum(event[3] for event in first["events"])
    removed = sum(len(event[2]) for event in first["events"])
    same = "no"
    if first["events"] == one["events"]:
        pairs = ((each, one["weights"][key]) for key, each in first["weights"].items())
        same = f"{max(float((a - b).abs().max()) for a, b in pairs):.0e}"
    seconds = first["seconds"]
    cells = [
        *(name, len(ranks), len(first["events"]), added, removed, "yes" if alike else "no", same),
        f"{first['loss']:.4f} ({one['loss']:.4f})",
        *(f"{seconds['event']:.3f}", f"{seconds['other step']:.4f}"),
    ]
    return _line(cells)


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    sys.exit(main())
