"""What it costs to silence units, told from what the model returns with and without them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from diffstruct.criteria.loss import Loss, nats, targets
from diffstruct.criteria.outputs import Call
from diffstruct.distributed import Processes


def cost_of(loss: Loss, won: float, call: Call, before: Tensor, after: Tensor, processes: Processes) -> float:
    """The share of what was won that outputs `after` lose against `before`, on the batch of all processes.

    Args:
        loss: what the loss is.
        won: by the network so far.
        call: of the model, of which these are the outputs.
        before: `[predictions, classes]`.
        after: shaped alike.
        processes: that train the model, each with a part of the batch.
    """
    target = targets(loss.kind, call.outputs, call.gradient)
    if processes.size > 1:
        if loss.kind == "other":
            return _share_of_spread(loss, before, after, processes)
        lost, count = (0.0, 0) if target is None else _lost(loss.kind, target, call, before, after)
        total = processes.sum(np.array([lost * count, count]))
        return float(total[0]) / max(float(total[1]), 1.0) / won
    if target is None:
        spread = (before - before.mean(0)).square().sum().item()
        return (after - before).square().sum().item() / max(spread, 1e-300)
    return _lost(loss.kind, target, call, before, after)[0] / won


def _lost(kind: str, target: Tensor, call: Call, before: Tensor, after: Tensor) -> tuple[float, int]:
    """Nats that are lost per prediction, and how many of them have a target."""
    counted = call.gradient.abs().sum(1) > 0
    count = int(counted.sum())
    lost = nats(kind, after[counted], target[counted]) - nats(kind, before[counted], target[counted])
    return (lost, count) if count else (0.0, 0)


def _share_of_spread(loss: Loss, before: Tensor, after: Tensor, processes: Processes) -> float:
    """How much the outputs change, over how much they vary; both summed over all processes."""
    middle: NDArray[np.float64] = loss.constant  # about which squares are summed without cancelling
    sums = np.zeros(3 + len(middle))
    if before.shape[1] == len(middle):
        away = before.double().cpu().numpy() - middle
        change = float((after - before).double().square().sum())
        sums = np.array([change, np.square(away).sum(), len(away), *away.sum(0)])
    total = processes.sum(sums)
    spread = total[1] - float(np.square(total[3:]).sum()) / max(total[2], 1.0)
    return float(total[0] / max(spread, 1e-300))
