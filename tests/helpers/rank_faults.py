"""What ranks do wrong, and what they are told; each function returns the messages."""

import os
import signal
import time
import weakref
from contextlib import nullcontext
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from helpers.ranks import EAGER, TAYLOR, batch, network, whole
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

import diffstruct as ds
from diffstruct.distributed import sharding


def structured(model, rank, size, **options):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    common = {"total_steps": 100, "criterion": TAYLOR, "rule": EAGER, "interval": 1}
    x, _ = batch(0, rank, size)
    return optimizer, ds.Structure(model, optimizer, example_inputs=(x,), **{**common, **options})


def steps(called, optimizer, structure, rank, size, count):
    for step in range(count):
        x, y = batch(step, rank, size)
        optimizer.zero_grad()
        nn.functional.cross_entropy(called(x), y).backward()
        optimizer.step()
        structure.step()


def message(function, *args, **options):
    with pytest.raises(ds.StructureError) as raised:
        function(*args, **options)
    return str(raised.value)


def unwrapped(rank, size):
    model = network()
    optimizer, structure = structured(model, rank, size)
    return message(steps, model, optimizer, structure, rank, size, 1)


def independent(rank, size):
    model = network(seed=rank)
    optimizer, structure = structured(model, rank, size, independent=True, seed=rank)
    steps(model, optimizer, structure, rank, size, 20)
    return [(event.step, event.width) for event in structure.history.events]


def other_seeds(rank, size):
    model = DistributedDataParallel(network())
    optimizer, structure = structured(model, rank, size, seed=rank)
    return message(steps, model, optimizer, structure, rank, size, 1)


def other_decisions(rank, size):
    class Whim(ds.Criterion):
        def importance(self, width):
            importance = torch.ones(width.size)
            importance[:rank] = 0
            return importance

    model = DistributedDataParallel(network())
    rule = ds.Rule(p_delete=1.0, p_add=0.0, p_spontaneous=0.0, threshold=0.5, reserve=0)
    optimizer, structure = structured(model, rank, size, criterion=Whim(), rule=rule)
    return message(steps, model, optimizer, structure, rank, size, 5)


def refusals(rank, size):
    found = {}
    model = network()
    found["DataParallel"] = message(structured, nn.DataParallel(model), rank, size)
    model[4] = DistributedDataParallel(model[4])
    found["a part"] = message(structured, model, rank, size)
    model = network()
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ["4.weight"])
    found["not all"] = message(structured, DistributedDataParallel(model), rank, size)
    model = DistributedDataParallel(network())
    model.register_comm_hook(powerSGD_hook.PowerSGDState(None), powerSGD_hook.powerSGD_hook)
    found["PowerSGD"] = message(structured, model, rank, size)
    model = DistributedDataParallel(network())
    optimizer, structure = structured(model, rank, size)
    with model.join():
        found["join"] = message(steps, model, optimizer, structure, rank, size, 1)
    model = network()
    mesh = init_device_mesh("cpu", (size,))
    model[0].weight = nn.Parameter(distribute_tensor(model[0].weight.detach(), mesh, [Shard(0)]))
    found["tensor parallel"] = message(structured, model, rank, size)
    return found


def killed(rank, size):
    """The last rank is killed at step 8; how long the others wait, and what they say."""
    model = DistributedDataParallel(network())
    optimizer, structure = structured(model, rank, size)
    begun = time.monotonic()
    try:
        for step in range(1000):
            if rank == size - 1 and step == 8:
                os.kill(os.getpid(), signal.SIGKILL)
            steps(model, optimizer, structure, rank, size, 1)
    except Exception as error:
        return f"{type(error).__name__} after {time.monotonic() - begun:.0f} s: {error}"


def ended(rank, size):
    """Rank 1 leaves the run where the others decide."""
    model = DistributedDataParallel(network())
    optimizer, structure = structured(model, rank, size)
    steps(model, optimizer, structure, rank, size, 3)
    x, y = batch(3, rank, size)
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    if rank == 1:
        os._exit(1)
    return message(structure.step)


def of_one(rank, size):
    """A group of one process each: nobody to agree with, and a reducer all the same."""
    groups = [dist.new_group([each]) for each in range(size)]
    model = DistributedDataParallel(network(seed=rank), process_group=groups[rank])
    optimizer, structure = structured(model, rank, size, seed=rank)
    steps(model, optimizer, structure, rank, size, 20)
    return len(structure.history.events)


def sharded(size, *, seed=0, kind="plain"):
    model = network(kind, seed)
    for each in (model[2], model):
        fully_shard(each, mesh=init_device_mesh("cpu", (size,)))
    return model


def sharded_objects(rank, size):
    """Whether parameters are the same objects after many events, and what the optimizer has of them fits.

    Some have weak references to them, as a profiler has; they have notes of their own on them, and are in the
    graph of a loss that is still alive.
    """
    model = network()
    found = ds.find_widths(model, (batch(0, rank, size)[0],))
    for each in (model[2], model):
        fully_shard(each, mesh=init_device_mesh("cpu", (size,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    structure = ds.Structure(
        model, optimizer, widths=found, total_steps=100, criterion=TAYLOR, rule=EAGER, interval=1
    )
    before = [*map(id, model.parameters())]
    weak = [weakref.ref(parameter) for parameter in model.parameters()]
    for number, parameter in enumerate(model.parameters()):
        parameter.note = number
    alive = sum(parameter.square().sum() for parameter in model.parameters())
    steps(model, optimizer, structure, rank, size, 25)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True):
        steps(model, optimizer, structure, rank, size, 25)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        alive.backward()  # of weights that are gone
    sum(parameter.square().sum() for parameter in model.parameters()).backward()
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = [optimizer.state[parameter] for parameter in model.parameters()]
    return [
        len(structure.history.events) > 10,
        [*map(id, model.parameters())] == before,
        all(reference() is parameter for reference, parameter in zip(weak, model.parameters(), strict=True)),
        [parameter.note for parameter in model.parameters()] == [*range(len(before))],
        all(parameter.grad.shape == parameter.shape for parameter in model.parameters()),
        [*map(id, held)] == before,
        all(
            state[key].shape == parameter.shape and state[key].placements == parameter.placements
            for state, parameter in zip(states, model.parameters(), strict=True)
            for key in ("exp_avg", "exp_avg_sq")
        ),
        all(isinstance(parameter, DTensor) for parameter in model.parameters()),
        len(optimizer.state) == len(before),
    ]


def sharded_refusals(rank, size):
    found = {}
    model = network()
    optimizer, structure = structured(model, rank, size)
    fully_shard(model, mesh=init_device_mesh("cpu", (size,)))
    found["too late"] = message(steps, model, optimizer, structure, rank, size, 1)
    found["criterion"] = message(structured, sharded(size), rank, size, criterion=ds.OutgoingNorm())
    blocks = network("blocks")
    fully_shard(blocks, mesh=init_device_mesh("cpu", (size,)))
    found["depth"] = message(structured, blocks, rank, size, depth=["1"], rule={})
    model = sharded(size)
    optimizer, structure = structured(model, rank, size)
    found["copy"] = message(structure.follow, network())
    return found


def spoilt(order, rank, structure, step):
    """What comes behind the surgery fails on all ranks; or, at every other step of a sharded model, the
    surgery itself on one of them, once two parameters are changed."""
    if order == "wrapped" or step % 2:
        return patch.object(structure.history, "record", side_effect=lambda step, changes, costs: 1 / len(()))
    real, left = sharding._put, [2]

    def put(*args):
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError("no memory")
        real(*args)

    return patch.object(sharding, "_put", put) if rank == 1 else nullcontext()


def undone(rank, size, order):
    """Whether a decision that fails leaves all as it was on all ranks, and training goes on."""
    model = sharded(size) if order == "sharded" else network()
    called = model if order == "sharded" else DistributedDataParallel(model)
    optimizer, structure = structured(model, rank, size)
    steps(called, optimizer, structure, rank, size, 12)

    def snapshot():
        states = [optimizer.state[p][key] for p in model.parameters() for key in ("exp_avg", "exp_avg_sq")]
        return [whole(each) for each in (*model.parameters(), *states)], [*map(id, model.parameters())]

    found, alone = [], 0
    for step in range(12, 30):
        x, y = batch(step, rank, size)
        optimizer.zero_grad()
        nn.functional.cross_entropy(called(x), y).backward()
        optimizer.step()
        (values, objects), sizes = snapshot(), {n: w.size for n, w in structure.widths.items()}
        with spoilt(order, rank, structure, step):
            try:
                structure.step()
                continue
            except (ZeroDivisionError, MemoryError, ds.StructureError) as error:
                alone += not isinstance(error, ZeroDivisionError)
                now, same = snapshot()
                found.append(
                    same == objects
                    and sizes == {name: width.size for name, width in structure.widths.items()}
                    and all(torch.equal(a, b) for a, b in zip(values, now, strict=True))
                )
        structure.step()
    failures = len(found) == 18 if order == "wrapped" else alone > 2
    return [*found, failures, len(structure.history.events) > 10]
