"""Forward and backward of `ds.nn.RNN`, `GRU` and `LSTM` against those of `torch.nn`.

Each call is `module(x)`, then `output.backward(gradient)`: through autograd, the parameters' gradients adding
up as in training; `x` itself wants no gradient. 4 inputs, float32. Both sides take turns in one process, in
blocks of about 10 ms, as a training loop calls the same layer again and again. How cost grows: units, length
and batch each vary about 37 units, 40 steps, batch 1; beside them, all widths and batches at 40 steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from timing import in_turn, ratio, spread
from torch import nn

import diffstruct as ds

WIDTHS, STEPS, BATCHES = (10, 37, 100, 256, 512, 1024), (10, 40, 160), (1, 32, 256)
INPUTS = 4
BLOCK = 0.01  # seconds


def both(kind: str, units: int, steps: int, batch: int) -> dict[str, Callable[[], None]]:
    """A forward and backward pass of either layer, with the same weights."""
    torch.manual_seed(0)
    ours, theirs = (getattr(library, kind)(INPUTS, units) for library in (ds.nn, nn))
    theirs.load_state_dict(ours.state_dict())
    x, gradient = torch.randn(steps, batch, INPUTS), torch.randn(steps, batch, units)

    def call(module: nn.Module) -> None:
        module(x)[0].backward(gradient)

    return {"ours": lambda: call(ours), "torch": lambda: call(theirs)}


def measure(kind: str, units: int, steps: int, batch: int, rounds: int) -> dict[str, Any]:
    """Time one size of one layer; return a row of the table."""
    blocks, counts = {}, {}
    for name, call in both(kind, units, steps, batch).items():
        call()  # compiles
        begin = time.perf_counter()
        call()
        counts[name] = count = max(1, round(BLOCK / (time.perf_counter() - begin)))
        blocks[name] = lambda call=call, count=count: [call() for _ in range(count)]
    seconds = in_turn(blocks, rounds)
    each = {name: [value / counts[name] for value in values] for name, values in seconds.items()}
    return {
        "layer": kind,
        "units": units,
        "steps": steps,
        "batch": batch,
        **{f"{name}_us": spread([1e6 * value for value in values]) for name, values in each.items()},
        "torch_over_ours": ratio(each["torch"], each["ours"]),
    }


def sizes(quick: bool) -> list[tuple[int, int, int]]:
    """Units, steps and batch of each row."""
    if quick:
        return [(37, 40, 1), (37, 40, 32)]
    lengths = [(37, steps, batch) for steps, batch in product(STEPS, BATCHES) if steps != 40]
    return [(units, 40, batch) for units, batch in product(WIDTHS, BATCHES)] + lengths


def table(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """Measure every layer at every size; print a table, return its rows."""
    print("| layer | units | steps | batch | ours, µs | torch.nn, µs | times as fast |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for kind, size in product(("RNN", "GRU", "LSTM"), sizes(quick)):
        row = measure(kind, *size, rounds)
        rows.append(row)
        ours, theirs, times = (row[name] for name in ("ours_us", "torch_us", "torch_over_ours"))
        print(
            f"| {kind} | {size[0]:,} | {size[1]} | {size[2]} | {ours['median']:,.0f} | "
            f"{theirs['median']:,.0f} | **{times['median']:.1f}** ({times['q25']:.1f}-{times['q75']:.1f}) |",
            flush=True,
        )
    return rows
