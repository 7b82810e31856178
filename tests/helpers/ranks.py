"""Several processes that train one model, as `torchrun` starts them, and one process with the whole batch."""

from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing import get_context
from torch.nn.parallel import DistributedDataParallel

import diffstruct as ds
from diffstruct.criteria import removal

EAGER = ds.Rule(p_add=0.5, p_delete=0.5, max_units=32, grace_period=3)
STEPS = 40


def on_ranks(work: Any, size: int, *args: Any, timeout: float = 60) -> list[Any]:
    """What `work(rank, size, *args)` returns on each rank, or the message of the error that it raises there."""
    with tempfile.TemporaryDirectory() as folder:
        context = get_context("spawn")
        every = [
            context.Process(target=_run, args=(work, rank, size, folder, args), daemon=True)
            for rank in range(size)
        ]
        for process in every:
            process.start()
        for process in every:
            process.join(timeout)
            if process.is_alive():
                process.kill()
        files = [Path(folder, f"{rank}.pt") for rank in range(size)]
        return [torch.load(file, weights_only=False) if file.exists() else None for file in files]


def _run(work: Any, rank: int, size: int, folder: str, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = f"file://{folder}/store"
    dist.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=size, timeout=timedelta(seconds=20)
    )
    try:
        found = work(rank, size, *args)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    torch.save(found, f"{folder}/{rank}.pt")
    if not isinstance(found, str):
        dist.barrier()
        dist.destroy_process_group()


def network(kind: str = "plain", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    between = {
        "plain": nn.Identity,
        "layernorm": lambda: nn.LayerNorm(8),
        "batchnorm": lambda: nn.BatchNorm1d(8),
    }[kind]()
    return nn.Sequential(nn.Linear(5, 8), between, nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def batch(step: int, rank: int = 0, size: int = 1, examples: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """A part of a batch: the others have the rest."""
    x = torch.randn(examples, 5, generator=torch.Generator().manual_seed(step))
    return x[rank::size], x[rank::size, :3].argmax(1)


def told(model: nn.Module, structure: ds.Structure, loss: torch.Tensor) -> dict[str, Any]:
    """What is compared."""
    return {
        "sizes": {name: width.size for name, width in structure.widths.items()},
        "events": [(e.step, e.width, e.removed, e.added, e.size) for e in structure.history.events],
        "costs": [e.cost for e in structure.history.events],
        "weights": {name: each.detach().clone() for name, each in model.state_dict().items()},
        "loss": loss.item(),
    }


def train(
    rank: int,
    size: int,
    order: str = "structure first",
    kind: str = "plain",
    criterion: ds.Criterion | None = None,
    accumulate: int = 1,
    options: dict[str, Any] | None = None,
    loss: str = "cross_entropy",
    sgd: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Train on a part of each batch; of `size` 1, on all of it, without a wrapper."""
    removal.FORWARDS_A_STEP = 2
    model = network(kind, seed=rank if order == "structure first" and size > 1 else 0)
    x, _ = batch(0, rank, size)
    criterion = criterion or ds.TaylorImportance(price=1, settling=1e9)
    common: dict[str, Any] = {
        "total_steps": 100,
        "criterion": criterion,
        "rule": EAGER,
        "interval": 1,
        **(options or {}),
    }
    # Adam makes steps of one size of gradients that are rounding alone, as some are in front of a LayerNorm.
    kinds = {True: partial(torch.optim.SGD, lr=0.2, momentum=0.5), False: partial(torch.optim.Adam, lr=0.01)}
    optimizer = kinds[sgd](model.parameters())
    if order == "structure first":
        structure = ds.Structure(model, optimizer, example_inputs=(x,), **common)
    called = model if size == 1 else DistributedDataParallel(model, **settings)
    if order != "structure first":
        given = called if order == "wrapper first" else model
        structure = ds.Structure(given, optimizer, example_inputs=(x,), **common)
    for step in range(STEPS):
        optimizer.zero_grad()
        for part in range(accumulate):
            x, y = batch(step * accumulate + part, rank, size)
            last = part == accumulate - 1
            with nullcontext() if last or size == 1 else called.no_sync():
                value = getattr(nn.functional, loss)(called(x), y if loss == "cross_entropy" else x[:, :3])
                (value / accumulate).backward()
        optimizer.step()
        structure.step()
    return told(model, structure, value)
