"""Train one transformer: of a uniform shape, or of a shape that is learned under a budget."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from shapes import MOST_BLOCKS, OWN, Shape
from task import Task
from text import language_task
from torch import Tensor, nn

import diffstruct as ds

RATE = 1e-3
"""Adam's."""

WIDTHS, DEPTH = "two blocks", "from one block"
"""What is learned: the widths of two blocks, or the number of blocks as well."""


@dataclass(frozen=True)
class Job:
    """One model to train.

    Args:
        budget: parameters, at most.
        shape: of a uniform model, or what is learned.
        seed: of weights, batches and structure.
        quick: only to see that it works.
    """

    budget: int
    shape: Shape | str
    seed: int
    quick: bool = False

    @property
    def file(self) -> Path:
        """Where the run is kept, in the folder of results."""
        what = self.shape.replace(" ", "-") if isinstance(self.shape, str) else "-".join(map(str, self.shape))
        how = "learned" if isinstance(self.shape, str) else "uniform"
        return Path(
            "runs", f"{self.budget}{'-quick' * self.quick}", f"{how}-{what}", f"seed-{self.seed:03}.json"
        )

    @property
    def task(self) -> Task:
        """The text, with what depends on the seed."""
        return language_task(lambda size: Shape(*size).build(), RATE, self.seed, self.quick)

    def build(self) -> nn.Module:
        """The model, with weights drawn on the CPU."""
        shape = self.shape
        if isinstance(shape, str):
            shape = OWN._replace(blocks=MOST_BLOCKS) if shape == DEPTH else OWN
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return shape.build()


def train(job: Job, device: str = "cpu") -> dict[str, Any]:
    """Train the model of a job and measure it: bits per byte, parameters, the sizes that were learned."""
    torch.set_num_threads(1)
    task, model = job.task, job.build().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.rate)
    structure = None
    begin = time.monotonic()
    if isinstance(job.shape, str):
        example, _ = next(task.batches(torch.Generator().manual_seed(job.seed)))
        structure = ds.Structure(
            model,
            optimizer,
            example_inputs=(example.to(device),),
            total_steps=task.updates,
            seed=job.seed,
            budget=ds.Budget(parameters=job.budget),
            depth=["blocks"] if job.shape == DEPTH else (),
            start={"blocks": 1} if job.shape == DEPTH else None,
        )
    for batch in task.batches(torch.Generator().manual_seed(job.seed)):
        x, y = (each.to(device) for each in batch)
        loss = task.loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if structure is not None:
            structure.step()
    sizes: dict[str, int] = {}
    if structure is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ds.StructureWarning)  # a quick run wins nothing
            model = structure.finish()
        sizes = {name: width.size for name, width in structure.widths.items()}
    seconds = time.monotonic() - begin
    return {**measured(model, task, device), "sizes": sizes, "seconds": seconds, "device": device}


@torch.no_grad()
def measured(model: nn.Module, task: Task, device: str) -> dict[str, Any]:
    """Bits per byte of text that the model was not trained on, and its parameters."""

    class There(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return model(x.to(device)).cpu()

    model.eval()
    return {
        "bits": task.score(There()),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
