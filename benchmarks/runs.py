"""What `structure.step()` costs in whole runs: CPU time beside a plain loop that trains the same network.

A plain loop and one with a structure take turns in one process, some hundred steps each. Sizes are held where
they are (`min_units`), so that both train the same network, and everything but the removals happens:
recording, importance, decay, the rule. In a free run, units are tried and removed besides; there, the time
within `structure.step()` is set against that of the training steps of the same run, which get cheaper.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from timing import spread
from torch import nn

import diffstruct as ds

BATCH, ROWS, FEATURES, CLASSES = 32, 4096, 32, 10
TURN = 250
"""Steps that one side makes before it is the other's turn."""

SIZES, STEPS = (64, 256, 1024), (1_000, 10_000)


def network(units: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Two hidden layers, and Adam."""
    torch.manual_seed(0)
    layers = [nn.Linear(FEATURES, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(units, CLASSES))
    return model, torch.optim.Adam(model.parameters())


def loop(units: int, steps: int, rule: ds.Rule | None, learned: bool) -> Iterator[tuple[float, float]]:
    """Train, some steps at a time; yield the seconds that these took, and those within `structure.step()`."""
    model, optimizer = network(units)
    x = torch.randn(ROWS, FEATURES)
    y = (x @ torch.randn(FEATURES, CLASSES)).argmax(1)
    structure = None
    if learned:
        structure = ds.Structure(model, optimizer, example_inputs=(x[:BATCH],), total_steps=steps, rule=rule)
    for first in range(0, steps, TURN):
        begin, within = time.process_time(), 0.0
        for step in range(first, min(first + TURN, steps)):
            rows = slice(step * BATCH % ROWS, step * BATCH % ROWS + BATCH)
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if structure is not None:
                called = time.process_time() if rule is None else 0.0
                structure.step()
                within += time.process_time() - called if rule is None else 0.0
        yield time.process_time() - begin, within


def measure(units: int, steps: int, rounds: int) -> dict[str, Any]:
    """A row of the table."""
    held = ds.Rule(min_units=units)
    over, free, plain_ms = [], [], []
    for _ in range(rounds):
        both = zip(loop(units, steps, None, False), loop(units, steps, held, True), strict=True)
        plain, learned = (sum(side) for side in zip(*((a[0], b[0]) for a, b in both), strict=True))
        over.append(learned / plain - 1)
        plain_ms.append(1e3 * plain / steps)
        whole, within = (sum(part) for part in zip(*loop(units, steps, None, True), strict=True))
        free.append(within / (whole - within))
    return {
        "units": units,
        "steps": steps,
        "train_ms": spread(plain_ms),
        "held_over_plain": spread(over),
        "free_step_over_train": spread(free),
    }


def table(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """Measure every size and length of run; print a table, return its rows."""
    print("| units | steps | training step, ms | sizes held | `structure.step()` of a free run |")
    print("|---|---|---|---|---|")
    rows = []
    for units, steps in ((units, steps) for units in SIZES for steps in STEPS[: 1 if quick else None]):
        row = measure(units, steps, max(2, rounds // 3))
        rows.append(row)
        held, free = row["held_over_plain"], row["free_step_over_train"]
        print(
            f"| 2 x {units:,} | {steps:,} | {row['train_ms']['median']:.2f} | {_percent(held)} | "
            f"{_percent(free)} |",
            flush=True,
        )
    return rows


def _percent(values: dict[str, float]) -> str:
    return f"{100 * values['median']:.1f}% ({100 * values['q25']:.1f}-{100 * values['q75']:.1f})"
