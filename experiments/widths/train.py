"""Train one model: of a fixed size, or of widths that are learned."""

from __future__ import annotations

import math
import time
from functools import cache
from itertools import islice
from typing import Any

import torch
from task import Size, Study
from torch import nn
from torch.optim.swa_utils import update_bn

import diffstruct as ds

OUTGROWN = 4
"""A run is stopped at so many times the parameters of the largest fixed model."""


def train(study: Study, size: Size | None, seed: int, quick: bool = False) -> dict[str, Any]:
    """Train one model and measure it.

    Args:
        study: what to learn.
        size: the fixed size; None to learn it.
        seed: of the split, the weights, the batches and the structure.
        quick: only to see that it works.

    Returns:
        Scores, seconds, parameters, units of each width, the widths on the way, and the update at which the
        run was stopped because the model had outgrown the fixed ones; None if it was not.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    torch.set_num_threads(1)
    warm_up()
    task = study.task(seed, quick)
    with torch.random.fork_rng(devices=[]):
        most = OUTGROWN * parameters(task.build(study.sizes[-1]))
        torch.manual_seed(seed)
        model = task.build(study.template if size is None else size)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.rate)
    growth: list[tuple[int, list[int]]] = []
    structure, stopped = None, None
    start = time.perf_counter()
    for update, (x, y) in enumerate(task.batches(generator)):
        if structure is None and size is None:  # from the first batch, for what a model takes
            structure = ds.Structure(
                model, optimizer, example_inputs=(x,), total_steps=task.updates, seed=seed
            )
        if structure is not None and update % task.every == 0:
            growth.append((update, units(structure)))
        loss = task.loss(model(x), y)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss is {loss.item()} at update {update + 1}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if structure is not None and structure.step() and parameters(model) > most:
            stopped = update + 1
            break
    names: list[str] = []
    if structure is not None:
        growth.append((update + 1, units(structure)))
        model, names = structure.finish(), [*structure.widths]
        # What BatchNorm remembers is of units that have just gone, too; without it this does nothing.
        update_bn(islice(task.batches(generator), task.every), model)
    seconds = time.perf_counter() - start
    return {
        "scores": score(task.score, model),
        "seconds": seconds,
        "parameters": parameters(model),
        "widths": names,
        "units": list(size) if structure is None else units(structure),
        "growth": growth,
        "stopped": stopped,
    }


@cache
def warm_up() -> None:
    """Let PyTorch and diffstruct load what they load at first use, so that no run's seconds hold it."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    x = torch.ones(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    structure = ds.Structure(model, optimizer, example_inputs=(x,), total_steps=1)
    model(x).sum().backward()
    optimizer.step()
    structure.step()


def parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def units(structure: ds.Structure) -> list[int]:
    """The size of each width now."""
    return [width.size for width in structure.widths.values()]


@torch.no_grad()
def score(measure: Any, model: nn.Module) -> dict[str, float]:
    """Measure a model in evaluation mode."""
    model.eval()
    return measure(model)
