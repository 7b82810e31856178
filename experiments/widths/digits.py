"""scikit-learn's digits, 8 by 8 pixels: a hidden layer, two convolutional networks, an LSTM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from task import Size, Study, Task, shuffled, split
from torch import Tensor, nn

BATCH, EPOCHS, RATE = 64, 80, 3e-3
TRAINED = 0.5
"""The share of the images to train on: with as many to test on, an error of 1% is nine images, not four."""


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


class Block(nn.Module):
    """Two convolutions with BatchNorm, added to what came in."""

    def __init__(self, stream: int, inner: int) -> None:
        super().__init__()
        self.up = nn.Conv2d(stream, inner, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(inner), nn.BatchNorm2d(stream)
        self.down = nn.Conv2d(inner, stream, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, stream, height, width]` to the same."""
        return F.relu(x + self.norm2(self.down(F.relu(self.norm1(self.up(x))))))


def resnet(size: Size) -> nn.Module:
    """Two residual blocks, of one number of channels for the stream and within them."""
    channels = size[0]
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        Block(channels, channels),
        Block(channels, channels),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 10),
    )


class RowReader(nn.Module):
    """An LSTM that reads an image row by row."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.lstm, self.readout = nn.LSTM(8, size[0], batch_first=True), nn.Linear(size[0], 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[batch, 64]` to logits `[batch, 10]`."""
        return self.readout(self.lstm(x.unflatten(1, (8, 8)))[0][:, -1])


def digits_task(build: Callable[[Size], nn.Module], seed: int, quick: bool) -> Task:
    """One split of the images, and how any network is trained on them."""
    x, y = _digits()
    train, test = split(len(x), seed, TRAINED)
    epochs = 2 if quick else EPOCHS

    def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        return shuffled(x[train], y[train], BATCH, epochs, generator)

    def score(model: nn.Module) -> float:
        return 100 * (model(x[test]).argmax(1) != y[test]).double().mean().item()

    return Task(build, batches, F.cross_entropy, score, RATE, epochs * (len(train) // BATCH))


METRIC = "error, %", ".2f"
CNN_SIZES: tuple[Size, ...] = ((4, 8), (8, 16), (12, 24), (16, 32), (24, 48), (32, 64), (48, 96))
RESNET_SIZES: tuple[Size, ...] = ((4,), (6,), (8,), (12,), (16,), (24,), (32,))
STUDIES = (
    Study(
        "digits-mlp",
        "digits, one hidden layer",
        ((4,), (8,), (16,), (32,), (64,), (128,), (256,)),
        (128,),
        *METRIC,
        partial(digits_task, mlp),
    ),
    Study(
        "digits-cnn",
        "digits, two convolutions with BatchNorm",
        CNN_SIZES,
        (32, 64),
        *METRIC,
        partial(digits_task, cnn),
    ),
    Study(
        "digits-resnet",
        "digits, two residual blocks with BatchNorm",
        RESNET_SIZES,
        (24,),
        *METRIC,
        partial(digits_task, resnet),
    ),
    Study(
        "digits-lstm",
        "digits, row by row, an LSTM",
        ((4,), (8,), (16,), (24,), (32,), (64,), (128,)),
        (64,),
        *METRIC,
        partial(digits_task, RowReader),
        regulariser=None,  # its cut of nn.LSTM fails: an index is out of range
    ),
    Study(
        "digits-cnn-flops",
        "digits, two convolutions with BatchNorm, by multiply-adds",
        CNN_SIZES,
        (32, 64),
        *METRIC,
        partial(digits_task, cnn),
        regulariser=None,  # its budgets here are of parameters
        flops=True,
    ),
    Study(
        "digits-resnet-flops",
        "digits, two residual blocks with BatchNorm, by multiply-adds",
        RESNET_SIZES,
        (24,),
        *METRIC,
        partial(digits_task, resnet),
        regulariser=None,
        flops=True,
    ),
)
