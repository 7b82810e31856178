"""One run: a network that learns its depth from one block on, or one of as many blocks as that may have."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from task import TEST, Network, examples
from torch import nn

import diffstruct as ds

MOST, STEPS, BATCH, RATE = 8, 3000, 128, 3e-3


def train(steps: int, how: str, seed: int, shorter: int) -> dict[str, Any]:
    """Train a network on a task of so many maps.

    Args:
        steps: maps.
        how: "learned", or "fixed" at the largest depth.
        seed: of the task, the weights and the batches.
        shorter: divides the length of the run.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    x, y = examples(steps, seed)
    model, total = Network(MOST, y.shape[1]), STEPS // shorter
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    structure = None
    if how == "learned":
        structure = ds.Structure(
            model,
            optimizer,
            example_inputs=(x[:16],),
            total_steps=total,
            depth=["blocks"],
            start={"blocks": 1},
            include=["blocks.*"],
            seed=seed,
        )
    chance = torch.Generator().manual_seed(seed + 1)
    for _ in range(total):
        batch = torch.randint(len(x) - TEST, (BATCH,), generator=chance)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x[batch]), y[batch]).backward()
        optimizer.step()
        schedule.step()
        if structure is not None:
            structure.step()
    events: list[list[int]] = []
    if structure is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ds.StructureWarning)
            structure.finish()
        own = structure.history.of("blocks")
        events = [[event.step, event.added, len(event.removed)] for event in own][::-1]
    with torch.no_grad():
        error = nn.functional.mse_loss(model(x[-TEST:]), y[-TEST:]).item()
    return {
        "error": error,
        "blocks": len(model.blocks),
        "hidden": [block.up.out_features for block in model.blocks],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "events": events,
    }
