"""scikit-learn's digits, 8 by 8 pixels, with one hidden layer or with a small convolutional network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from task import Size, Study, Task, shuffled, split
from torch import Tensor, nn

BATCH, EPOCHS, RATE = 64, 60, 3e-3


@cache
def _digits() -> tuple[Tensor, Tensor]:
    """Images `[n, 64]` with values from 0 to 1, and what they show."""
    found = load_digits()
    return torch.tensor(found.data, dtype=torch.float32) / 16, torch.tensor(found.target)


def mlp(size: Size) -> nn.Module:
    """One hidden layer."""
    return nn.Sequential(nn.Linear(64, size[0]), nn.ReLU(), nn.Linear(size[0], 10))


def cnn(size: Size) -> nn.Module:
    """Two convolutions, each normalised and halved."""
    first, second = size
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, first, 3, padding=1),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.BatchNorm2d(second),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(second, 10),
    )


def _task(build: Callable[[Size], nn.Module], seed: int, quick: bool) -> Task:
    x, y = _digits()
    train, test = split(len(x), seed)
    epochs = 2 if quick else EPOCHS

    def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        return shuffled(x[train], y[train], BATCH, epochs, generator)

    def score(model: nn.Module) -> dict[str, float]:
        wrong = model(x[test]).argmax(1) != y[test]
        return {"error, %": 100 * wrong.double().mean().item()}

    an_epoch = len(train) // BATCH
    return Task(build, batches, F.cross_entropy, score, RATE, epochs * an_epoch, every=an_epoch)


METRICS = {"error, %": ".2f"}
STUDIES = (
    Study(
        "digits-mlp",
        "digits, one hidden layer",
        ((4,), (8,), (16,), (32,), (64,), (128,)),
        METRICS,
        lambda seed, quick: _task(mlp, seed, quick),
    ),
    Study(
        "digits-cnn",
        "digits, two convolutions",
        ((4, 8), (8, 16), (16, 32), (32, 64)),
        METRICS,
        lambda seed, quick: _task(cnn, seed, quick),
    ),
)
