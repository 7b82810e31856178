"""Classifying digits and points on spirals with one hidden layer, of a fixed or of a learned width."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import diffstruct as ds

TEMPLATE = 32
"""Units of the model that is handed to `Structure`, which starts it from fewer."""


@dataclass(frozen=True)
class Points:
    """A set of points to classify, and how to train on it.

    Args:
        draw: makes inputs `[n, features]` and classes `[n]` from a seed.
        classes: how many there are.
        epochs: times that the training set is gone through.
        rate: Adam's learning rate.
    """

    draw: Callable[[int], tuple[Tensor, Tensor]]
    classes: int
    epochs: int
    rate: float


@cache
def _digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    return torch.tensor(found.data, dtype=torch.float32) / 16, torch.tensor(found.target)


def _some_digits(classes: int, seed: int) -> tuple[Tensor, Tensor]:
    x, y = _digits()
    return x[y < classes], y[y < classes]


def _spirals(turns: float, seed: int) -> tuple[Tensor, Tensor]:
    """2,000 points on two interleaved spirals from the middle to radius 2, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    radius = torch.rand(2000, generator=generator).sqrt()
    arm = torch.randint(2, (2000,), generator=generator)
    angle = math.pi * (2 * turns * radius + arm)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    return 2 * points + 0.04 * torch.randn(2000, 2, generator=generator), arm


def digits(classes: int = 10) -> Points:
    """scikit-learn's digits, those below `classes`."""
    return Points(partial(_some_digits, classes), classes, 60, 3e-3)


def spirals(turns: float = 1.5) -> Points:
    """Two interleaved spirals."""
    return Points(partial(_spirals, turns), 2, 150, 1e-2)


def classify(
    points: Points,
    seed: int,
    fixed: int | None = None,
    start: int = 1,
    epochs: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train on four fifths of the points, in batches of 64, and measure on the rest.

    Args:
        points: what to learn.
        seed: of the split, the weights, the batches and the structure.
        fixed: units; None to learn them.
        start: units to start from.
        epochs: in the place of the usual ones.
        options: of `Structure`.
    """
    torch.set_num_threads(1)
    x, y = points.draw(seed)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    train, test = order[: len(x) * 4 // 5], order[len(x) * 4 // 5 :]
    size = max(TEMPLATE, start) if fixed is None else fixed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(x.shape[1], size), nn.ReLU(), nn.Linear(size, points.classes))
    optimizer = torch.optim.Adam(model.parameters(), lr=points.rate)
    epochs = epochs or points.epochs
    structure = None
    if fixed is None:
        steps = epochs * math.ceil(len(train) / 64)
        inputs = (x[train[:64]],)
        structure = ds.Structure(
            model,
            optimizer,
            example_inputs=inputs,
            total_steps=steps,
            start=start,
            seed=seed,
            **options,
        )
    for _ in range(epochs):
        shuffled = train[torch.randperm(len(train), generator=generator)]
        for batch in shuffled.split(64):
            loss = F.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if structure is not None:
                structure.step()
    plain: Any = model if structure is None else structure.finish()
    with torch.no_grad():
        right = (plain(x[test]).argmax(1) == y[test]).double().mean().item()
        loss = F.cross_entropy(plain(x[train]), y[train])
    return {
        "accuracy": 100 * right,
        "loss": loss.item(),
        "units": plain[0].out_features,
        "parameters": sum(parameter.numel() for parameter in plain.parameters()),
    }
