"""Runs of sharded models that are saved and go on, as docs/distributed.md says, on any number of ranks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from helpers.exact import same
from helpers.ranks import EAGER, TAYLOR, batch, network, told, whole
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim import Optimizer

import diffstruct as ds
from diffstruct.criteria import removal

_PAGE = Path(__file__).parents[2] / "docs" / "distributed.md"
_BLOCKS = re.findall(r"^```py\n(.*?)^```", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
_NAMES: dict[str, Any] = {"torch": torch, "dist": dist}
exec(next(block for block in _BLOCKS if "def save" in block), _NAMES)
save, load = _NAMES["save"], _NAMES["load"]

Run = tuple[nn.Module, Optimizer, ds.Structure]
SAVED, MIDDLE, END, QUIET = 2, 4, 8, 10
"""Steps: at which a run is saved, at which one that goes on from there is, the last, and one behind that at
which nothing changes, so that its batch is known."""


def made(rank: int, size: int, seed: int = 0) -> Run:
    """A model, sharded if there are several processes, its optimizer and its structure."""
    model = network("layernorm", seed).double()
    for each in (model[3], model) if dist.is_initialized() else ():
        fully_shard(each, mesh=init_device_mesh("cpu", (size,)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    common = {"total_steps": 60, "criterion": TAYLOR, "rule": EAGER, "interval": 1}
    x, _ = batch(0, rank, size)
    return model, optimizer, ds.Structure(model, optimizer, example_inputs=(x.double(),), start=1, **common)


def train(run: Run, rank: int, size: int, end: int) -> dict[str, Any]:
    """Go on until a step; what is there then."""
    model, optimizer, structure = run
    with patch.object(removal, "FORWARDS_A_STEP", 2):
        while structure.steps < end:
            x, y = batch(structure.steps, rank, size)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x.double()), y)
            loss.backward()
            optimizer.step()
            structure.step(loss)
    return {**told(model, structure), "losses": [each.loss for each in structure.history.measurements]}


def finished(run: Run) -> dict[str, Any]:
    """What is left of a run at its end."""
    before = sum(parameter.numel() for parameter in run[0].parameters())
    run[2].finish()
    weights = {name: whole(each) for name, each in run[0].named_parameters()}
    gone = before - sum(each.numel() for each in weights.values())
    cost = [event.cost for event in run[2].history.events if event.step == QUIET]  # as it was measured
    return {"weights": weights, "gone": gone, "cost": cost}


def at_once(rank: int, size: int, folder: str) -> dict[str, Any]:
    """Finish a run that was saved, without another step."""
    run = made(rank, size, seed=5)
    load(folder, *run)
    with warnings.catch_warnings(action="ignore"):  # that it is early
        return finished(run)


def interrupted(rank: int, size: int, folder: str, last: str) -> dict[str, Any]:
    """Save on the way, and come back to it: from disk, from memory, and in objects that were made anew."""
    run = made(rank, size)
    small = [deepcopy(each.state_dict()) for each in run]  # widths have not grown back yet
    train(run, rank, size, SAVED)
    save(folder, *run)
    kept = [deepcopy(each.state_dict()) for each in run]
    found = {"end": train(run, rank, size, END)}
    load(folder, *run)
    found["from disk"] = train(run, rank, size, END)
    for each, state in zip(run, kept, strict=True):
        each.load_state_dict(state)
    found["from memory"] = train(run, rank, size, END)
    other = made(rank, size, seed=3)
    for each, state in zip(reversed(other), reversed(small), strict=True):  # the structure's first
        each.load_state_dict(state)
    found["from the start"] = train(other, rank, size, END)
    other = made(rank, size, seed=1)
    load(folder, *other)
    found["made anew"] = train(other, rank, size, END)
    train(other, rank, size, QUIET)
    save(last, *other)
    return {**found, "finished": finished(other), "finished at once": at_once(rank, size, last)}


def goes_on(rank: int, size: int, folder: str, to: str) -> dict[str, Any]:
    """Go on with what was saved on another number of ranks; saved once more in the middle."""
    run = made(rank, size, seed=2)
    load(folder, *run)
    train(run, rank, size, MIDDLE)
    save(to, *run)
    return train(run, rank, size, END)


def refused(rank: int, size: int, folder: str) -> dict[str, Any]:
    """What ranks are told of states that are wrong on one of them or on all; nothing has changed then."""
    run = made(rank, size)
    model, optimizer, structure = run
    train(run, rank, size, 1)
    good = torch.load(f"{folder}.structure", weights_only=True)
    weights = model.state_dict()
    units, inputs = weights["3.weight"].shape
    odd = {**weights, "3.weight": torch.zeros(units + 1, inputs)}
    wide = {**odd, "3.bias": torch.zeros(units + 1), "5.weight": torch.zeros(3, units + 1)}
    cases: dict[str, Callable[[], Any]] = {
        "late, on one": lambda: fails(structure._growth, rank == 1, structure, good),
        "surgery, on one": lambda: fails_at("structure.changing.operate_on", 0, rank == 1, structure, good),
        "sharding, on one": lambda: fails_at("distributed.sharding._put", 2, rank == 1, structure, good),
        "missing on one": lambda: structure.load_state_dict(without(good, "criterion.pressure", rank == 1)),
        "late, on all": lambda: structure.load_state_dict(without(good, "criterion.pressure")),
        "early, on one": lambda: structure.load_state_dict(without(good, "widths", rank == 1)),
        "others": lambda: structure.load_state_dict({**good, "steps": good["steps"] + rank}),
        "weights on one": lambda: model.load_state_dict(odd if rank else weights),
        "other weights": lambda: model.load_state_dict(wide if rank else weights),
        "other file": lambda: ds.checkpoint.save(f"{folder}.{rank}", model=model),
        "growing": lambda: structure.load_state_dict({**good, "widening": {"largest": {}}}),
    }
    found = {}
    for what, wrong in cases.items():
        before = pictured(*run)
        try:
            wrong()
            found[what] = "loaded"
        except (ds.StructureError, ds.CheckpointError, MemoryError) as error:
            found[what] = str(error)
        if not same(pictured(*run), before):
            found[what] = "something has changed"
    train(run, rank, size, 2)
    structure.finish()
    end = [deepcopy(each.state_dict()) for each in (structure, model, optimizer)]
    other = made(rank, size, seed=4)
    for each, state in zip((other[2], other[0], other[1]), end, strict=True):
        each.load_state_dict(state)
    return {**found, "finished": same(pictured(*other)["weights"], pictured(*run)["weights"])}


def pictured(model: nn.Module, optimizer: Optimizer, structure: ds.Structure) -> dict[str, Any]:
    """All that loading could change."""
    parameters = [*model.parameters()]
    states = [
        {key: whole(each) for key, each in optimizer.state[parameter].items()} for parameter in parameters
    ]
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    return {
        "weights": [whole(each) for each in (*parameters, *model.buffers())],
        "gradients": [None if each.grad is None else whole(each.grad) for each in parameters],
        "states": states,
        "objects": [held, [*map(id, parameters)]],
        "structure": structure.state_dict(),
    }


def fails(part: Any, here: bool, structure: ds.Structure, state: Any) -> None:
    """Load a state where memory runs out on some ranks, behind the surgery."""
    with (
        patch.object(part, "load_state_dict", side_effect=MemoryError("no memory")) if here else nullcontext()
    ):
        structure.load_state_dict(state)


def fails_at(where: str, calls: int, here: bool, structure: ds.Structure, state: Any) -> None:
    """Load a state where memory runs out on some ranks, in a function after so many calls of it."""
    real, left = resolve_name(f"diffstruct.{where}"), [calls]

    def failing(*args: Any, **options: Any) -> Any:
        if not left[0]:
            raise MemoryError("no memory")
        left[0] -= 1
        return real(*args, **options)

    with patch(f"diffstruct.{where}", failing) if here else nullcontext():
        structure.load_state_dict(state)


def without(state: dict[str, Any], path: str, here: bool = True) -> dict[str, Any]:
    """A state without an entry, on the ranks that are meant."""
    first, _, rest = path.partition(".")
    if not here:
        return state
    inner = {first: without(state[first], rest)} if rest else {}
    return {**{key: value for key, value in state.items() if key != first}, **inner}


def of_one(folder: str) -> list[dict[str, Any]]:
    """Go on in this process, with the whole model; and what it comes to without an interruption."""
    run = made(0, 1, seed=3)
    load(folder, *run)
    return [train(run, 0, 1, END), train(made(0, 1), 0, 1, END)]
