"""Train one transformer: of a uniform shape, or of a shape that is learned under a budget."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from shapes import OWN, Shape
from text import language_task

import diffstruct as ds

RATE = 1e-3
"""Adam's."""


@dataclass(frozen=True)
class Job:
    """One model to train.

    Args:
        budget: parameters, at most.
        shape: of a uniform model; None: it is learned.
        seed: of weights, batches and structure.
        quick: only to see that it works.
    """

    budget: int
    shape: Shape | None
    seed: int
    quick: bool = False

    @property
    def file(self) -> Path:
        """Where the run is kept, in the folder of results."""
        how = "learned" if self.shape is None else "uniform-" + "-".join(map(str, self.shape))
        return Path("runs", f"{self.budget}{'-quick' * self.quick}", how, f"seed-{self.seed:03}.json")


def train(job: Job) -> dict[str, Any]:
    """Train the model of a job and measure it: bits per byte, parameters, the sizes that were learned."""
    torch.set_num_threads(1)
    task = language_task(lambda size: Shape(*size).build(), RATE, job.seed, job.quick)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        model: torch.nn.Module = task.build(job.shape or OWN)
    example, _ = next(task.batches(torch.Generator().manual_seed(job.seed)))
    optimizer = torch.optim.Adam(model.parameters(), lr=task.rate)
    structure = None
    begin = time.process_time()
    if job.shape is None:
        structure = ds.Structure(
            model,
            optimizer,
            example_inputs=(example,),
            total_steps=task.updates,
            seed=job.seed,
            budget=ds.Budget(parameters=job.budget),
        )
    for x, y in task.batches(torch.Generator().manual_seed(job.seed)):
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
    seconds = time.process_time() - begin
    model.eval()
    with torch.no_grad():
        bits = task.score(model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"bits": bits, "parameters": parameters, "sizes": sizes, "seconds": seconds}
