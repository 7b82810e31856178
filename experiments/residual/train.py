"""Train one residual network: of a uniform shape, or with everything learned under a budget."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from studies import STUDIES, fill, widest
from torch.optim.swa_utils import update_bn

import diffstruct as ds

REMEMBERED = 50
"""Batches from which BatchNorm's running statistics are taken anew at the end of every run."""


@dataclass(frozen=True)
class Job:
    """One model to train.

    Args:
        study: by name.
        budget: parameters, at most.
        shape: stream and blocks of a uniform model; None: both are learned, and every inner width.
        seed: of the split, the weights, the batches and the structure.
        quick: only to see that it works.
    """

    study: str
    budget: int
    shape: tuple[int, int] | None
    seed: int
    quick: bool = False

    @property
    def file(self) -> Path:
        """Where the run is kept, in the folder of results."""
        what = "learned" if self.shape is None else "uniform-{}-{}".format(*self.shape)
        folder = Path("runs", f"{self.study}{'-quick' * self.quick}", str(self.budget), what)
        return folder / f"seed-{self.seed:03}.json"


def train(job: Job) -> dict[str, Any]:
    """Train the model of a job and measure it: error, parameters, the shape, the sizes that were learned."""
    torch.set_num_threads(1)
    study = STUDIES[job.study]
    task = study.task(job.seed, job.quick)
    learned = job.shape is None
    shape = widest(study, task, job.budget) if learned else fill(task, job.budget, *job.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        model = task.build(shape)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.rate, fused=True)  # a third faster here
    generator = torch.Generator().manual_seed(job.seed)
    structure = None
    begin = time.process_time()
    if learned:
        example, _ = next(task.batches(torch.Generator().manual_seed(job.seed)))
        structure = ds.Structure(
            model,
            optimizer,
            example_inputs=(example,),
            total_steps=task.updates,
            seed=job.seed,
            budget=ds.Budget(parameters=job.budget),
            depth=["blocks"],
            start={"blocks": 1},
        )
    for x, y in task.batches(generator):
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
    # What BatchNorm remembers is of units that have just gone, too; without it this does nothing.
    update_bn(islice(task.batches(generator), REMEMBERED), model)
    seconds = time.process_time() - begin
    with torch.no_grad():
        error = task.score(model.eval())
    return {
        "error": error,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "shape": shape,
        "sizes": sizes,
        "seconds": seconds,
    }
