"""What is trained: three residual networks, three budgets of each, and the grid at each budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from digits import METRIC as DIGITS_METRIC
from digits import digits_task
from models import Shape, classifier, cnn, regressor
from prices import METRIC as PRICES_METRIC
from prices import prices_task
from task import Task

BLOCKS = (1, 2, 3)
"""Of the uniform shapes; learned ones have one to begin with, and room for as many as the deepest."""


@dataclass(frozen=True)
class Study:
    """A residual network and its data.

    Args:
        title: in a few words.
        streams: of the uniform shapes, by budget: parameters, at most.
        task: makes the task of a seed; told whether it is only to be tried quickly.
        metric: what `Task.score` returns; less is better.
        style: how it is written.
        seeds: of the grid, and of learned models.
        others: seeds on which the shapes that were best on these are looked at again.
    """

    title: str
    streams: dict[int, tuple[int, ...]]
    task: Callable[[int, bool], Task]
    metric: str
    style: str
    seeds: int = 10
    others: range = range(10, 40)

    def grid(self, budget: int) -> Iterator[tuple[int, int]]:
        """Streams and numbers of blocks; the inner width fills the budget."""
        return product(self.streams[budget], BLOCKS)


STUDIES = {
    "ames-mlp": Study(
        "house prices in Ames, an MLP with LayerNorm",
        {7_008: (8, 10, 12, 16), 14_016: (16, 20, 24, 32), 28_032: (32, 40, 48, 64)},
        partial(prices_task, ("modeldata", "ames", "Sale_Price"), 64, 40, make=regressor),
        *PRICES_METRIC,
    ),
    "digits-mlp": Study(
        "digits, an MLP with LayerNorm",
        {1_201: (6, 8, 10, 12), 2_402: (12, 16, 20, 24), 4_805: (24, 32, 40, 48)},
        partial(digits_task, classifier),
        *DIGITS_METRIC,
    ),
    "digits-cnn": Study(
        "digits, convolutions with BatchNorm",
        {2_680: (6, 8, 12, 16), 5_360: (8, 12, 16, 24), 10_721: (12, 16, 24, 32)},
        partial(digits_task, cnn),
        *DIGITS_METRIC,
        seeds=3,
        others=range(3, 10),
    ),
}
"""Budgets are an eighth, a quarter and a half of the networks of `experiments/widths` on the same data."""


def fill(task: Task, budget: int, stream: int, blocks: int) -> Shape:
    """The shape with the largest inner width that fits in.

    The number of columns, and so that of parameters, depends on the split: `task` has it.

    Raises:
        ValueError: not even an inner width of 2 fits in.
    """
    one, two = (parameters(task, Shape(stream, inner, blocks)) for inner in (1, 2))
    inner = 1 + (budget - one) // (two - one)
    if inner < 2:
        raise ValueError(f"{blocks} blocks on a stream of {stream} do not fit into {budget:,} parameters")
    return Shape(stream, inner, blocks)


def parameters(task: Task, shape: Shape) -> int:
    """Of a model of that shape."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in task.build(shape).parameters())


def widest(study: Study, task: Task, budget: int) -> Shape:
    """What the learned model of a budget begins from: as wide as the widest of its grid, throughout."""
    shapes = [fill(task, budget, *each) for each in study.grid(budget)]
    return Shape(*map(max, zip(*shapes, strict=True)))
