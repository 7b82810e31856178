"""What a study gives to the training loop: data, a model of any size, a loss and a score."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Size = tuple[int, ...]
"""One number for each size of a uniform model: units, channels or heads."""


@dataclass(frozen=True)
class Task:
    """One split of the data, drawn by a seed, and how to train on it.

    Args:
        build: makes a model of a size, from PyTorch's own generator.
        batches: yields every batch of a training run, in an order drawn from the generator given.
        loss: of the model's output and the targets.
        score: the error of a model that is in evaluation mode, on data that it was not trained on.
        rate: Adam's learning rate.
        updates: of a training run.
    """

    build: Callable[[Size], nn.Module]
    batches: Callable[[torch.Generator], Iterator[tuple[Tensor, Tensor]]]
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[nn.Module], float]
    rate: float
    updates: int


@dataclass(frozen=True)
class Way:
    """How a model comes by its sizes.

    Args:
        how: `"uniform"`: it has them; `"learned"`; or `"pruned"` by Torch-Pruning.
        size: of a uniform model.
        share: of what the model's own size takes, that the budget is; None: the default price.
    """

    how: str
    size: Size = ()
    share: float | None = None

    def __str__(self) -> str:
        what = "-".join(map(str, self.size)) or ("price" if self.share is None else f"{self.share:g}")
        return f"{self.how}-{what}"


@dataclass(frozen=True)
class Study:
    """A task for each seed, and the sizes and budgets to compare.

    Args:
        name: by which it is asked for.
        title: what is learned, in a few words.
        sizes: the uniform sizes, from small to large.
        own: the one of them that learned and pruned models start from.
        metric: what `Task.score` returns; less is better.
        style: how it is written.
        task: makes the task of a seed; told whether it is only to be tried quickly.
        shares: the budgets, as shares of what the model's own size takes.
        regulariser: the strength of Torch-Pruning's; None where it cannot cut such a model.
        language: whether it is a language model, which takes longer: three seeds in the place of ten.
        flops: whether budgets, price and comparison are of multiply-adds, in the place of parameters.
    """

    name: str
    title: str
    sizes: tuple[Size, ...]
    own: Size
    metric: str
    style: str
    task: Callable[[int, bool], Task]
    shares: tuple[float, ...] = (1 / 8, 1 / 4, 1 / 2, 3 / 4)
    regulariser: float | None = 3e-3
    language: bool = False
    flops: bool = False

    @property
    def measure(self) -> str:
        """What sizes are compared by."""
        return "multiply-adds" if self.flops else "parameters"

    @property
    def seeds(self) -> int:
        """How many to run unless told otherwise."""
        return 3 if self.language else 10

    def ways(self, quick: bool = False) -> list[Way]:
        """What each seed trains; quickly tried, two sizes, one budget and the price."""
        sizes, shares = ((self.sizes[0], self.own), self.shares[2:3]) if quick else (self.sizes, self.shares)
        return [
            *(Way("uniform", size) for size in sizes),
            *(Way("learned", share=share) for share in (*shares, None)),
            *(Way("pruned", share=share) for share in shares if self.regulariser is not None),
        ]


def shuffled(
    x: Tensor, y: Tensor, batch: int, epochs: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go `epochs` times through the data in random order, leaving out what fills no whole batch."""
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for chosen in order[: len(x) // batch * batch].split(batch):
            yield x[chosen], y[chosen]


def split(rows: int, seed: int, share: float = 0.8) -> tuple[Tensor, Tensor]:
    """The rows to train on, a share of them, and the rows to test on."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return order[: int(rows * share)], order[int(rows * share) :]
