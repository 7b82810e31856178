"""Measure everything, in one process, on one core: `python benchmarks [--json FILE] [--quick]`.

What counts are the ratios: both sides of each are measured in turn, so that a machine that slows down slows
both.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import overhead
import recurrent
import runs
import torch
import updates
from timing import where


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(prog="python benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--quick", action="store_true", help="only the sizes that matter most")
    parser.add_argument("--rounds", type=int, default=11, help="measurements of either side (default: 11)")
    options = parser.parse_args()
    torch.set_num_threads(1)

    place = where()
    versions = ", ".join(f"{name} {version}" for name, version in place["versions"].items())
    print(f"{place['machine']}; one thread; {versions}. Medians, quartiles in parentheses.")
    print("\nWhole updates, 40 characters each; the compiled and the PyTorch loop in float32\n")
    rows = {"updates": updates.table(options.quick, options.rounds)}
    print("\nForward and backward of a layer\n")
    rows["layers"] = recurrent.table(options.quick, options.rounds)
    print("\nStructure beside training, Adam, batch 32\n")
    rows["overhead"] = overhead.table(options.rounds)
    print("\nStructure in whole runs, two hidden layers, Adam, batch 32, CPU time\n")
    rows["runs"] = runs.table(options.quick, options.rounds)
    if options.json is not None:
        options.json.write_text(json.dumps({**place, **rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
