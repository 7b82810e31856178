"""Train one model: of a uniform size, of widths that are learned, or pruned half way."""

from __future__ import annotations

import math
import time
import warnings
from functools import cache
from itertools import islice
from typing import Any

import torch
from pruning import Pruner
from task import Study, Task, Way
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.flop_counter import FlopCounterMode

import diffstruct as ds

REMEMBERED = 50
"""Batches from which BatchNorm's running statistics are taken anew at the end of a run."""


class Uniform:
    """Sizes that stay as they are.

    Args:
        model: the model, at the size that it starts from.
        task: how to train it.
    """

    def __init__(self, model: nn.Module, task: Task) -> None:
        self.model, self.task = model, task
        self.optimizer = torch.optim.Adam(model.parameters(), lr=task.rate)

    def before_step(self) -> None:
        """What comes between gradients and a step of the optimizer."""

    def after_step(self, update: int) -> None:
        """What comes after so many steps of the optimizer."""

    def finish(self) -> dict[str, int]:
        """End the training; the sizes of the widths that were learned."""
        return {}


class Learned(Uniform):
    """Widths that `Structure` learns, with a budget or at the default price."""

    def __init__(
        self, model: nn.Module, task: Task, example: Tensor, budget: int | None, seed: int, flops: bool
    ) -> None:
        super().__init__(model, task)
        found = ds.find_widths(model, (example,))
        self.structure = ds.Structure(
            model,
            self.optimizer,
            widths=found,
            total_steps=task.updates,
            seed=seed,
            criterion=ds.TaylorImportance(cost=ds.MultiplyAdds(found)) if flops else None,
            budget=None if budget is None else ds.Budget(**{"flops" if flops else "parameters": budget}),
        )

    def after_step(self, update: int) -> None:
        """Decide."""
        self.structure.step()

    def finish(self) -> dict[str, int]:
        """Remove what is not needed any more."""
        self.model = self.structure.finish()
        return {name: width.size for name, width in self.structure.widths.items()}


class Pruned(Uniform):
    """Half of the updates with Torch-Pruning's regulariser, a cut, and the other half with a fresh Adam."""

    def __init__(self, model: nn.Module, task: Task, example: Tensor, budget: int, strength: float) -> None:
        super().__init__(model, task)
        self.budget, self.half = budget, task.updates // 2
        self.pruner: Pruner | None = Pruner(model, example, strength)

    def before_step(self) -> None:
        """Regularise."""
        if self.pruner is not None:
            self.pruner.regularise()

    def after_step(self, update: int) -> None:
        """Cut, half way."""
        if update == self.half and self.pruner is not None:
            self.pruner.cut(self.budget)
            self.pruner = None
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.task.rate)


def train(study: Study, way: Way, seed: int, quick: bool = False) -> dict[str, Any]:
    """Train one model and measure it.

    Args:
        study: what to train.
        way: how it comes by its sizes.
        seed: of the split, the weights, the batches and the structure.
        quick: only to see that it works.

    Returns:
        Score, seconds of the processor, parameters (or multiply-adds, where these are compared), those of the
        model's own size, the budget, sizes of the widths that were learned, and what there was to warn of.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    torch.set_num_threads(1)
    warm_up()
    task = study.task(seed, quick)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = task.build(way.size or study.own)
    example, _ = next(task.batches(torch.Generator().manual_seed(seed)))
    own = taken(study, model, example)
    budget = None if way.share is None else round(way.share * own)
    generator = torch.Generator().manual_seed(seed)
    start = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ds.StructureWarning)
        if way.how == "uniform":
            run = Uniform(model, task)
        elif way.how == "learned":
            run = Learned(model, task, example, budget, seed, study.flops)
        else:
            run = Pruned(model, task, example, budget or 0, study.regulariser or 0.0)
        for update, (x, y) in enumerate(task.batches(generator), 1):
            loss = task.loss(run.model(x), y)
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"the loss is {loss.item()} at update {update}")
            run.optimizer.zero_grad()
            loss.backward()
            run.before_step()
            run.optimizer.step()
            run.after_step(update)
        units = run.finish()
    # What BatchNorm remembers is of units that have just gone, too; without it this does nothing.
    update_bn(islice(task.batches(generator), REMEMBERED), run.model)
    seconds = time.process_time() - start
    return {
        "score": score(task, run.model),
        "seconds": seconds,
        "parameters": taken(study, run.model, example),
        "own": own,
        "budget": budget,
        "units": units,
        "warnings": [str(each.message) for each in caught if each.category is ds.StructureWarning],
    }


@cache
def warm_up() -> None:
    """Let PyTorch and diffstruct load what they load at first use, so that no run's seconds hold it."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    x = torch.ones(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    structure = ds.Structure(model, optimizer, example_inputs=(x,), total_steps=1)
    model(x).sum().backward()
    optimizer.step()
    structure.step()


def taken(study: Study, model: nn.Module, example: Tensor) -> int:
    """What a model takes: parameters, or multiply-adds for an example, by PyTorch's own count."""
    if not study.flops:
        return parameters(model)
    training, counter = model.training, FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(example)
    model.train(training)
    return counter.get_total_flops() // 2 // len(example)


def parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.no_grad()
def score(task: Task, model: nn.Module) -> float:
    """Measure a model in evaluation mode."""
    return task.score(model.eval())
