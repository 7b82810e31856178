"""What units were worth, from time to time: a bounded number of samples, however long the run is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLES = 400
"""Samples of a run at most; an even number."""

MEASUREMENTS = 4000
"""Measurements that a structure adds by itself, at most; an even number."""

NUMBERS = 2**21
"""Importances in all samples together at most: 8 MB."""

FEWEST = 8
"""Samples that are kept even where each has very many numbers."""

COSTS = ("parameters", "multiply-adds")
"""What a model may be known to cost; multiply-adds are those for an example."""


@dataclass(frozen=True, eq=False)
class Sample:
    """The units of all widths at one moment, and what the model cost and lost then.

    Args:
        step: after which it was taken, counted from 1.
        events: how many events had happened before: the units are those that there were after these.
        importances: `[units]` of each width, by the name that it had then, in the criterion's unit.
        thresholds: what they had to be above, by the same names.
        cost: of the whole model then, by `COSTS`, those that are known.
        loss: in nats per prediction, a moving average, where the criterion knows it.

    Example:
        >>> import torch
        >>> import diffstruct as ds
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> x = torch.ones(16, 3)
        >>> structure = ds.Structure(model, optimizer, example_inputs=(x,), total_steps=10, interval=5)
        >>> for _ in range(10):
        ...     optimizer.zero_grad()
        ...     loss = (model(x) - 1).square().mean()
        ...     loss.backward()
        ...     optimizer.step()
        ...     events = structure.step(loss)
        >>> [(each.step, len(each.importances["0"]), each.cost) for each in structure.history.samples]
        [(5, 8, {'parameters': 41.0}), (10, 8, {'parameters': 41.0})]
        >>> [each.update for each in structure.history.measurements]
        [5, 10]
    """

    step: int
    events: int
    importances: Mapping[str, NDArray[np.float32]]
    thresholds: Mapping[str, float]
    cost: Mapping[str, float]
    loss: float | None = None
    numbers: int = field(init=False)
    """How many importances it has."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", sum(map(len, self.importances.values())))


@dataclass
class Spacing:
    """Which of all moments that come are kept, evenly spaced, so that their number stays bounded.

    Every `every`-th is kept. When these are too many, every second of them is dropped and `every` doubles:
    what is kept depends on nothing but how many moments there were.

    Args:
        every: of so many moments one is kept.
        seen: moments so far.
    """

    every: int = 1
    seen: int = 0

    def until_next(self) -> int:
        """The number of moments up to the next one that is kept, with it."""
        return self.every - (self.seen - 1) % self.every

    def passes(self, moments: int = 1) -> bool:
        """Count moments; whether one to be kept was among them."""
        kept = moments >= self.until_next()
        self.seen += moments
        return kept

    def thin(self, entries: list[Any], too_many: Callable[[], bool]) -> None:
        """Drop every second entry, the first one stays, as long as there are too many."""
        while too_many():
            del entries[1::2]
            self.every *= 2
