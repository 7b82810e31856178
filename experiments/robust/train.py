"""One run of a cell: with the widths that the user wrote, or learned from these, or from one unit."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from cells import Cell
from data import Data, load
from torch import Tensor, nn

import diffstruct as ds

BATCH = 64
STREAM = 32
"""Width of the residual stream, which is not learned."""

START: dict[str, int | None] = {"own": None, "one": 1}
"""What each kind of learned run starts from."""

OTHER = 1000
"""What makes the seed of other batches."""

Job: TypeAlias = tuple[Cell, str, int]
"""A cell, how it is run, and the seed."""


def file_of(job: Job) -> Path:
    """The job's file in the folder of results."""
    cell, how, seed = job
    return Path("runs", f"{hashlib.sha256(repr(cell).encode()).hexdigest()[:16]}--{how}--{seed}.json")


class Residual(nn.Module):
    """A layer and a readout behind a LayerNorm, added to what came in."""

    def __init__(self, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.norm, self.up, self.down = (
            nn.LayerNorm(STREAM),
            nn.Linear(STREAM, width),
            nn.Linear(width, STREAM),
        )
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, STREAM]` to the same."""
        return x + self.down(self.activation(self.up(self.norm(x))))


def build(cell: Cell, features: int, outputs: int) -> nn.Module:
    """The network of a cell."""
    make = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}[cell.activation]
    if cell.kind == "residual":
        blocks = [Residual(cell.width, make()) for _ in range(cell.depth)]
        return nn.Sequential(
            nn.Linear(features, STREAM), *blocks, nn.LayerNorm(STREAM), nn.Linear(STREAM, outputs)
        )
    layers: list[nn.Module] = []
    for _ in range(cell.depth):
        layers.append(nn.Linear(features, cell.width))
        if cell.kind == "batch":
            layers.append(nn.BatchNorm1d(cell.width))
        layers.append(make())
        features = cell.width
    return nn.Sequential(*layers, nn.Linear(features, outputs))


def optimizers(cell: Cell, model: nn.Module, scale: float) -> list[torch.optim.Optimizer]:
    """The optimizers of a cell; where the rate is in units of the loss, it follows the loss's scale."""
    parameters, rate = [*model.parameters()], cell.rate
    if cell.optimizer in ("SGD", "momentum"):
        momentum = 0.9 if cell.optimizer == "momentum" else 0.0
        return [torch.optim.SGD(parameters, lr=rate / scale, momentum=momentum)]
    if cell.optimizer == "Muon":
        matrices = [each for each in parameters if each.ndim == 2]
        others = [each for each in parameters if each.ndim != 2]
        return [torch.optim.Muon(matrices, lr=rate), torch.optim.AdamW(others, lr=1e-3)]
    return [getattr(torch.optim, cell.optimizer)(parameters, lr=rate)]


def loss_of(cell: Cell, data: Data, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss that is trained on."""
    how = {"class": F.cross_entropy, "labels": F.binary_cross_entropy_with_logits, "number": F.mse_loss}
    return cell.factor * how[data.kind](outputs, targets, reduction=cell.reduction)


@torch.no_grad()
def won(cell: Cell, data: Data, model: nn.Module) -> float:
    """What a model wins on test data over the best constant: of the labels it gets right, of the variance."""
    outputs, y = model.eval()(data.test_x), data.test_y
    if data.kind == "number":
        error = (outputs / cell.targets - y).square().mean() / (y - data.y.mean(0)).square().mean()
        return 1 - float(error)
    if data.kind == "class":
        right = (outputs.argmax(1) == y).double().mean()
        chance = (y == data.y.mode().values).double().mean()
    else:
        right = ((outputs > 0) == (y > 0.5)).double().mean()
        chance = ((data.y.mean(0) > 0.5) == (y > 0.5)).double().mean()
    return float((right - chance) / (1 - chance))


def train(cell: Cell, how: str, seed: int, shorter: int = 1) -> dict[str, Any]:
    """Make one run of a cell.

    Args:
        cell: the cell.
        how: `"fixed"`, `"again"` for the same with its batches in another order, or a key of `START`.
        seed: of data, weights, batches and structure.
        shorter: how many times shorter than it should be.
    """
    torch.set_num_threads(1)
    data, steps = load(cell.data, seed), cell.steps // shorter
    generator = torch.Generator().manual_seed(seed + OTHER * (how == "again"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(cell, data.x.shape[1], data.outputs)
    whole = sum(each.numel() for each in model.parameters())
    entries = BATCH * (data.outputs if data.kind != "class" else 1)
    scale = cell.factor * (entries if cell.reduction == "sum" else 1)
    trained = optimizers(cell, model, scale)
    y = data.y * cell.targets if data.kind == "number" else data.y
    structure = None
    if how in START:
        structure = ds.Structure(
            model, trained, example_inputs=(data.x[:BATCH],), total_steps=steps, start=START[how], seed=seed
        )
    begin, order, largest = time.perf_counter(), torch.empty(0, dtype=torch.int64), 0
    try:
        for _ in range(steps):
            if len(order) < BATCH:
                order = torch.randperm(len(y), generator=generator)
            rows, order = order[:BATCH], order[BATCH:]
            for optimizer in trained:
                optimizer.zero_grad()
            loss_of(cell, data, model(data.x[rows]), y[rows]).backward()
            for optimizer in trained:
                optimizer.step()
            if structure is not None and structure.step():
                largest = max(largest, sum(width.size for width in structure.widths.values()))
    except ds.DivergenceError:
        return {"won": None, "parameters": whole, "whole": whole, "units": [], "seconds": 0.0}
    seconds = time.perf_counter() - begin
    if structure is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ds.StructureWarning)
            model = structure.finish()
    score = won(cell, data, model)
    return {
        "won": score if math.isfinite(score) else None,
        "parameters": sum(each.numel() for each in model.parameters()),
        "whole": whole,
        "units": [] if structure is None else [width.size for width in structure.widths.values()],
        "seconds": seconds,
    }
