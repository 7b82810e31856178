"""One run: some processes, of which each has a part of every batch, and what they come to."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

import diffstruct as ds

BATCH = 64


class Block(nn.Module):
    """Adds something to what comes in."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape `[..., width]`."""
        return x + self.down(torch.tanh(self.up(x)))


def train(study: str, wrapper: str, ranks: int, steps: int) -> list[dict[str, Any]]:
    """What each rank comes to.

    Args:
        study: `"widths"`, or `"blocks"`, whose number is learned, too.
        wrapper: `"ddp"`, `"shards"`, or `"one"` for one process with the whole batch.
        ranks: processes.
        steps: of training.
    """
    with tempfile.TemporaryDirectory() as folder:
        spawn(_run, (study, wrapper, ranks, steps, folder), nprocs=ranks)
        return [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(ranks)]


def _run(rank: int, study: str, wrapper: str, ranks: int, steps: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    torch.manual_seed(0)
    blocks = nn.Sequential(*[Block(32, 48) for _ in range(3)])
    # In double precision, so that what differs from one process is not what training makes of rounding.
    model = nn.Sequential(nn.Linear(8, 32), blocks, nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 4)).double()
    inputs = (_batch(0, rank, ranks)[0],)
    called: nn.Module = model
    if wrapper == "shards":
        mesh = init_device_mesh("cpu", (ranks,))
        for each in (*blocks, model):
            fully_shard(each, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    options: dict[str, Any] = {"rule": ds.Rule(max_units=64), "interval": 8}
    if study == "blocks":
        options |= {"depth": ["1"], "start": {"1": 1}, "rule": {"1": ds.Rule(max_units=5)}}
    structure = ds.Structure(model, optimizer, example_inputs=inputs, total_steps=steps, **options)
    if wrapper == "ddp":
        called = DistributedDataParallel(model)
    quiet = events = 0.0
    count = 0
    for step in range(steps):
        x, y = _batch(step, rank, ranks)
        optimizer.zero_grad()
        nn.functional.cross_entropy(called(x), y).backward()
        optimizer.step()
        begun = time.perf_counter()
        changed = structure.step()
        took = time.perf_counter() - begun
        if changed:
            events, count = events + took, count + 1
        else:
            quiet += took
    structure.finish()
    x, y = _batch(steps, 0, 1)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(called(x), y).item()
    every = [(e.step, e.width, e.removed, e.added) for e in structure.history.events]
    result = {
        "events": every,
        "weights": {name: _whole(each) for name, each in model.named_parameters()},
        "loss": loss,
        "seconds": {"event": events / max(count, 1), "other step": quiet / max(steps - count, 1)},
    }
    torch.save(result, Path(folder, f"{rank}.pt"))
    dist.barrier()
    dist.destroy_process_group()


def _batch(step: int, rank: int, ranks: int) -> tuple[Tensor, Tensor]:
    """A part of a batch: which of two products is larger, and which of two sums."""
    x = torch.randn(BATCH, 8, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
    y = (x[:, 0] * x[:, 1] > x[:, 2] * x[:, 3]).long() + 2 * (x[:, 4:6].sum(1) > x[:, 6:].sum(1)).long()
    return x[rank::ranks], y[rank::ranks]


def _whole(parameter: Tensor) -> Tensor:
    value = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
    return value.detach().clone()
