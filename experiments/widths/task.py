"""What a study gives to the training loop: data, a model of any size, a loss and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Size = tuple[int, ...]
"""One number for each width that is learned: units, channels or heads."""


@dataclass(frozen=True)
class Task:
    """One split of the data, drawn by a seed, and how to train on it.

    Args:
        build: makes a model of a size, from PyTorch's own generator.
        batches: yields every batch of a training run, in an order drawn from the generator given.
        loss: of the model's output and the targets.
        score: measures a model that is in evaluation mode, on data that it was not trained on.
        rate: Adam's learning rate.
        updates: of a training run.
        every: updates between two records of the widths.
    """

    build: Callable[[Size], nn.Module]
    batches: Callable[[torch.Generator], Iterator[tuple[Tensor, Tensor]]]
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[nn.Module], dict[str, float]]
    rate: float
    updates: int
    every: int


@dataclass(frozen=True)
class Study:
    """A task for each seed, and the fixed sizes to compare with.

    Args:
        name: by which it is asked for.
        title: what is learned, in a few words.
        sizes: the fixed sizes, from small to large; the learned model is the middle one, cut down.
        metrics: what `Task.score` returns, by name, each with its format; the first decides. Less is better.
        task: makes the task of a seed; told whether it is only to be tried quickly.
        seeds: how many to run unless told otherwise.
    """

    name: str
    title: str
    sizes: tuple[Size, ...]
    metrics: dict[str, str]
    task: Callable[[int, bool], Task]
    seeds: int = 10

    @property
    def template(self) -> Size:
        """The size that the learned model is built with, before it is cut down to one unit."""
        return self.sizes[len(self.sizes) // 2]


def shuffled(
    x: Tensor, y: Tensor, batch: int, epochs: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go `epochs` times through the data in random order, leaving out what fills no whole batch."""
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for chosen in order[: len(x) // batch * batch].split(batch):
            yield x[chosen], y[chosen]


def split(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """The rows to train on, four fifths of them, and the rows to test on."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return order[: rows * 4 // 5], order[rows * 4 // 5 :]
