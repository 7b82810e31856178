"""Residual networks of any stream, inner width and number of blocks."""

from __future__ import annotations

from typing import NamedTuple

import digits
import torch.nn.functional as F
from task import Size
from torch import Tensor, nn


class Shape(NamedTuple):
    """A residual network whose blocks are all alike.

    Args:
        stream: channels or units that all blocks add to.
        inner: of each block.
        blocks: how many.
    """

    stream: int
    inner: int
    blocks: int

    def __str__(self) -> str:
        return f"{self.blocks} x {self.inner}, stream {self.stream}"


class Residual(nn.Module):
    """Blocks between a stem and a head.

    Args:
        stem: from the inputs to the stream.
        blocks: from the stream to the same.
        head: from the stream to the outputs.
    """

    def __init__(self, stem: nn.Module, blocks: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = stem, nn.Sequential(*blocks), head

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, features]` to what the head returns."""
        return self.head(self.blocks(self.stem(x)))


def cnn(size: Size) -> Residual:
    """The convolutions of `digits.resnet`, 8 by 8 pixels to logits `[batch, 10]`."""
    stream, inner, blocks = size
    stem = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, stream, 3, padding=1, bias=False),
        nn.BatchNorm2d(stream),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(stream, 10))
    return Residual(stem, [digits.Block(stream, inner) for _ in range(blocks)], head)


class Block(nn.Module):
    """A hidden layer behind a LayerNorm, added to what came in."""

    def __init__(self, stream: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(stream)
        self.up, self.down = nn.Linear(stream, inner), nn.Linear(inner, stream)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, stream]` to the same."""
        return x + self.down(F.relu(self.up(self.norm(x))))


def _mlp(features: int, size: Size, outputs: int, *last: nn.Module) -> Residual:
    stream, inner, blocks = size
    head = nn.Sequential(nn.LayerNorm(stream), nn.Linear(stream, outputs), *last)
    return Residual(nn.Linear(features, stream), [Block(stream, inner) for _ in range(blocks)], head)


def classifier(size: Size) -> Residual:
    """64 pixels to logits `[batch, 10]`."""
    return _mlp(64, size, 10)


def regressor(features: int, size: Size) -> Residual:
    """So many columns to numbers `[batch]`."""
    return _mlp(features, size, 1, nn.Flatten(0))
