"""Whole updates of the paper's networks: the compiled loop against the NumPy program.

The baseline, `tests/helpers/oracle.py`, is as fast as the author's program. Both sides ask the rule at each
update, which leaves the size as it is, and read the same text. The ordinary PyTorch loop stands beside them.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from timing import in_turn, ratio, spread

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.oracle import Oracle

from diffstruct.paper.compiled.trainer import FusedTrainer
from diffstruct.paper.revisions import get_revision
from diffstruct.paper.tasks import Phase, Reader, hard, windows
from diffstruct.paper.training import Trainer

UNITS = (1, 5, 10, 20, 37, 50, 75, 100)
SLOW, FAST = 100, 1000  # updates per call: both about as long


def measure(number: int, units: int, rounds: int) -> dict[str, Any]:
    """Time `units` units of one revision; return a row of the table."""
    phases = (Phase(0, hard()),)
    texts = [torch.Generator().manual_seed(0) for _ in range(3)]
    revision = get_revision(number)
    if units > 1:  # a reserve that is filled at once, with units that are never deleted
        rule = replace(
            revision.rule, reserve=units - 1, p_add=1.0, p_delete=0.0, p_spontaneous=0.0, max_units=units
        )
    else:
        rule = replace(revision.rule, p_add=0.0, p_delete=0.0, p_spontaneous=0.0)
    revision = replace(revision, rule=rule)
    fused, ordinary = (kind(revision, 4, 0) for kind in (FusedTrainer, Trainer))
    readers = [Reader(phases, text) for text in texts[:2]]
    for trainer, reader in zip((fused, ordinary), readers, strict=True):
        trainer.advance(reader.take(10))
        assert trainer.units == units
    oracle = Oracle(number, 4, np.random.default_rng(0), units)
    oracle.c = SimpleNamespace(**{**vars(oracle.c), "p_add": 0.0, "p_delete": 0.0, "p_spontaneous": 0.0})
    text = [(w.inputs.numpy(), w.targets.numpy(), w.restart) for w in islice(windows(phases, texts[2]), SLOW)]

    def numpy_program() -> None:
        for window in text:
            oracle.step(*window)

    seconds = in_turn(
        {
            "oracle": numpy_program,
            "ordinary": lambda: ordinary.advance(readers[1].take(SLOW)),
            "fused": lambda: fused.advance(readers[0].take(FAST)),
        },
        rounds,
    )
    assert fused.units == ordinary.units == oracle.units == units
    each = {
        name: [value / (FAST if name == "fused" else SLOW) for value in values]
        for name, values in seconds.items()
    }
    return {
        "revision": number,
        "units": units,
        **{f"{name}_us": spread([1e6 * value for value in values]) for name, values in each.items()},
        "oracle_over_fused": ratio(each["oracle"], each["fused"]),
        "ordinary_over_fused": ratio(each["ordinary"], each["fused"]),
    }


def table(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """Measure every size of two revisions; print a table, return its rows."""
    print("| revision | units | compiled loop, µs | NumPy program, µs | times as fast | PyTorch loop, µs |")
    print("|---|---|---|---|---|---|")
    rows = []
    for number, units in product((2, 3), (10, 37, 100) if quick else UNITS):
        row = measure(number, units, rounds)
        rows.append(row)
        fused, oracle, ordinary = (row[f"{name}_us"] for name in ("fused", "oracle", "ordinary"))
        times = row["oracle_over_fused"]
        print(
            f"| {number} | {units} | {fused['median']:.1f} | {oracle['median']:.0f} | "
            f"**{times['median']:.1f}** ({times['q25']:.1f}-{times['q75']:.1f}) | {ordinary['median']:.0f} |",
            flush=True,
        )
    return rows
