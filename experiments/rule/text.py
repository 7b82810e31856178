"""Predicting the paper's texts, with the compiled training loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from diffstruct.paper import tasks
from diffstruct.paper.compiled.trainer import FusedTrainer
from diffstruct.paper.revisions import Revision
from diffstruct.paper.seeds import split_seed

EVERY = 100
"""Updates between two looks at loss and units."""


def read(
    phases: Sequence[tasks.Phase], seed: int, way: Revision, fixed: int | None = None, start: int = 1
) -> dict[str, Any]:
    """Train a network on a text.

    Args:
        phases: what to read when.
        seed: of the weights, the structure and the text.
        way: price, rule, optimizer and number of updates.
        fixed: units; None to learn them.
        start: units to start from.
    """
    torch.set_num_threads(1)
    network_seed, text_seed = split_seed(seed)
    reader = tasks.Reader(phases, torch.Generator().manual_seed(text_seed))
    trainer = FusedTrainer(way, len(phases[0].task.alphabet), network_seed, fixed, start_units=start)
    losses, units = [], []
    while trainer.updates < way.cycles:
        until = min(EVERY - trainer.updates % EVERY, way.cycles - trainer.updates)
        trainer.advance(reader.take(until))
        if trainer.updates % EVERY == 0:
            losses.append(trainer.smoothed)
            units.append(trainer.units)
    measured = np.array(losses)
    below = np.flatnonzero((measured < 10.2) & (np.arange(len(measured)) * EVERY > 1000))
    switches = [phase.start for phase in phases[1:]] + [way.cycles]
    return {
        "loss": trainer.smoothed,
        "units": trainer.units,
        "solved": int(below[0] + 1) * EVERY if len(below) else None,
        "worst": float(measured[int(0.8 * len(measured)) :].max()),
        "phases": [[losses[at // EVERY - 1], units[at // EVERY - 1]] for at in switches],
        "curve": [[round(loss, 4) for loss in losses[9::10]], units[9::10]],
    }
