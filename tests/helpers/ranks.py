"""Several processes that train one model, as `torchrun` starts them, and one process with the whole batch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from helpers.exact import same
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.multiprocessing import get_context
from torch.nn.parallel import DistributedDataParallel

import diffstruct as ds
from diffstruct.criteria import removal
from diffstruct.history.state import history_state
from diffstruct.structure.deepening import Deepening

EAGER = ds.Rule(p_add=0.5, p_delete=0.5, max_units=32, grace_period=3)
TAYLOR = ds.TaylorImportance(price=1, settling=1e9)  # removes units from the start of the run on
STEPS = 30
ROUNDING = 1e-4
"""What rounding comes to in thirty steps of Adam, which makes steps of one size of all gradients."""


def on_ranks(size: int, *works: Callable[[int, int], Any], timeout: float = 300) -> list[list[Any]]:
    """What each of the functions returns on each rank, or the message of the error that it raises there.

    They are called with rank and number of ranks, one after the other; behind an error there comes no other.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = get_context("forkserver")  # which imports PyTorch once for all
        context.set_forkserver_preload([__name__])
        arguments = [(works, rank, size, folder) for rank in range(size)]
        every = [context.Process(target=_run, args=each, daemon=True) for each in arguments]
        for process in every:
            process.start()
        for process in every:
            process.join(timeout)
            if process.is_alive():
                process.kill()
        found = [
            torch.load(path, weights_only=False) if path.exists() else [] for path in _files(folder, size)
        ]
    return [[each[index] if index < len(each) else None for each in found] for index in range(len(works))]


def _files(folder: str, size: int) -> list[Path]:
    return [Path(folder, f"{rank}.pt") for rank in range(size)]


def _run(works: Sequence[Callable[[int, int], Any]], rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    found: list[Any] = []
    for work in works:
        try:
            found.append(work(rank, size))
        except BaseException as error:  # also what pytest fails with
            found.append(f"{type(error).__name__}: {error}")
            break
    torch.save(found, _files(folder, size)[rank])
    if not isinstance(found[-1], str):
        dist.barrier()
        dist.destroy_process_group()


class Block(nn.Module):
    """Adds something to what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 6), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.tanh(self.up(x)))


def network(kind: str = "plain", seed: int = 0) -> nn.Module:
    """A small network for `batch`; `kind` is what stands between its first layer and the others."""
    torch.manual_seed(seed)
    between = {
        "plain": lambda: [nn.ReLU()],
        "layernorm": lambda: [nn.LayerNorm(8), nn.Tanh()],
        "batchnorm": lambda: [nn.BatchNorm1d(8), nn.ReLU()],
        "blocks": lambda: [nn.Sequential(Block(), Block(), Block())],
    }[kind]()
    return nn.Sequential(nn.Linear(5, 8), *between, nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def batch(step: int, rank: int = 0, size: int = 1, examples: int = 32) -> tuple[Tensor, Tensor]:
    """A part of a batch: the other ranks have the rest."""
    x = torch.randn(examples, 5, generator=torch.Generator().manual_seed(step))
    return x[rank::size], x[rank::size, :3].argmax(1)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "softmax": lambda outputs, x, y: nn.functional.cross_entropy(outputs, y),
    "squares": lambda outputs, x, y: nn.functional.mse_loss(outputs, x[:, :3]),
    "sigmoid": lambda outputs, x, y: nn.functional.binary_cross_entropy_with_logits(
        outputs, (x[:, :3] > 0).to(x)
    ),
}


def every_fifth(self: Deepening, ages: Any, fair: float, worth: Any, most: int) -> int:
    """In the place of `Deepening.more`: a block comes at every fifth decision."""
    worth(ages.argsort()[:1])
    return int(self._age % 5 == 0 and len(ages) < most)


def whole(parameter: Tensor) -> Tensor:
    """All of a parameter, also of one that is sharded."""
    value = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
    return value.detach().clone()


def told(model: nn.Module, structure: ds.Structure) -> dict[str, Any]:
    """What is compared."""
    return {
        "sizes": {name: width.size for name, width in structure.widths.items()},
        "events": [(e.step, e.width, e.removed, e.added, e.size) for e in structure.history.events],
        "losses": [(each.update, each.loss) for each in structure.history.measurements],
        "samples": history_state(structure.history)["samples"],
        "weights": {name: whole(each) for name, each in model.named_parameters()},
        "draws": structure.training.generator.bit_generator.state,
    }


def train(
    rank: int,
    size: int,
    order: str = "structure first",
    *,
    kind: str = "plain",
    loss: str = "softmax",
    accumulate: int = 1,
    sgd: bool = False,
    dtype: torch.dtype = torch.float32,
    settings: dict[str, Any] | None = None,
    hook: Any = None,
    finish: bool = False,
    begin: int = 0,
    stop: int = STEPS,
    state: Any = None,
    **options: Any,
) -> dict[str, Any]:
    """Train on a part of each batch; of `size` 1, on all of it, without a wrapper.

    Args:
        rank: of this process.
        size: processes.
        order: in which model, structure and wrapper are made.
        kind: of network.
        loss: one of `LOSSES`.
        accumulate: batches for a step, all but the last without reducing gradients.
        sgd: as the optimizer. Adam makes steps of one size of gradients that are rounding alone, as some in
            front of a `LayerNorm` are.
        dtype: of the model.
        settings: of the wrapper.
        hook: that reduces gradients.
        finish: at the end.
        begin: number of the first step.
        stop: number of the step that is not made any more.
        state: what another run came to, which this one goes on from.
        options: of `Structure`.
    """
    first = order == "structure first"
    model = network(kind, seed=rank if first else 0).to(dtype)
    inputs = (batch(0, rank, size)[0].to(dtype),)
    options = {"criterion": TAYLOR, "rule": EAGER, "total_steps": 100, "interval": 1, **options}
    made = partial(torch.optim.SGD, lr=0.2, momentum=0.5) if sgd else partial(torch.optim.Adam, lr=0.01)
    if order == "sharded" and size > 1:
        for each in (*(model[1] if kind == "blocks" else model[2:3]), model):
            fully_shard(each, mesh=init_device_mesh("cpu", (size,)), **(settings or {}))
    optimizer = made(model.parameters())
    with patch.object(removal, "FORWARDS_A_STEP", 2), patch.object(Deepening, "more", every_fifth):
        structure = ds.Structure(model, optimizer, example_inputs=inputs, **options) if first else None
        wraps = size > 1 and order != "sharded"
        called = DistributedDataParallel(model, **(settings or {})) if wraps else model
        if hook is not None and size > 1:
            called.register_comm_hook(None, hook)
        if structure is None:
            given = called if order == "wrapper first" else model
            structure = ds.Structure(given, optimizer, example_inputs=inputs, **options)
        run = model, optimizer, structure
        for each, saved in zip(run, state or (), strict=state is not None):
            each.load_state_dict(deepcopy(saved))  # processes share the memory of what they are given
        for step in range(begin, stop):
            optimizer.zero_grad()
            mean = torch.zeros((), dtype=dtype)
            for part in range(accumulate):
                x, y = batch(step * accumulate + part, rank, size)
                reduced = size == 1 or part == accumulate - 1
                if order == "sharded" and size > 1:
                    called.set_requires_gradient_sync(reduced)
                with nullcontext() if reduced or not wraps else called.no_sync():
                    value = LOSSES[loss](called(x.to(dtype)), x.to(dtype), y) / accumulate
                    value.backward()
                mean += value.detach()
            optimizer.step()
            structure.step(mean)
        if finish:
            structure.finish()
            x, y = batch(STEPS, rank, size)
            optimizer.zero_grad()
            LOSSES[loss](called(x.to(dtype)), x.to(dtype), y).backward()
            optimizer.step()
    saved = None if finish or order == "sharded" else [each.state_dict() for each in run]
    return {**told(model, structure), "state": saved}


def assert_alike(ranks: Sequence[Any]) -> None:
    """All ranks have come to the same, bit for bit."""
    first, *others = ranks
    assert isinstance(first, dict), first
    for other in others:
        assert isinstance(other, dict), other
        assert other["events"] == first["events"]
        assert other["draws"] == first["draws"]
        assert same(other["losses"], first["losses"])
        assert same(other["samples"], first["samples"])
        assert [*other["weights"]] == [*first["weights"]]
        for name, weights in first["weights"].items():
            assert torch.equal(other["weights"][name], weights), name


def assert_as_one(found: dict[str, Any], one: dict[str, Any], tolerance: float = ROUNDING) -> None:
    """A rank has come to what one process came to, through additions and removals."""
    assert found["events"] == one["events"]
    assert [step for step, _ in found["losses"]] == [step for step, _ in one["losses"]]
    assert abs(found["losses"][0][1] - one["losses"][0][1]) < 1e-5  # of the whole batch, not of a part of it
    assert any(removed for _, _, removed, _, _ in one["events"])
    assert any(added for _, _, _, added, _ in one["events"])
    for name, weights in one["weights"].items():
        torch.testing.assert_close(found["weights"][name], weights, rtol=0, atol=tolerance)
