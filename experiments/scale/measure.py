"""Events of a small sharded transformer on this machine: what was sent, alive, and waited for."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from model import Collective, Machine, Model, Place, Sharded, of_decision
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing import spawn
from watch import Watch

import diffstruct as ds
from diffstruct.rule.decision import Decision, decision
from diffstruct.width import READERS

HEADS, CLASSES, TIME, BATCH = 4, 64, 16, 4
SIZES = {"tiny": 32, "small": 128, "middle": 256, "large": 512}
"""Units of the stream; feed-forward networks have four times as many."""
KINDS = "one", "all", "stream", "decision"
REPEATS = 15
LEAST = 1 << 20
"""Entries of the smallest tensor that bandwidth is measured with: of less, the latency's noise hides it."""
COLD = 1 << 24
"""Entries of all tensors that are copied, if these are large: no cache has them any more, as in an event."""


class Block(nn.Module):
    """Attention and a feed-forward network, each behind a LayerNorm and added to what came in."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.head = dim // HEADS

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, time, stream]` to the same."""
        batch, time, _ = x.shape
        y = self.norms[0](x)
        q, k, v = (
            layer(y).view(batch, time, HEADS, self.head).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(mixed.transpose(1, 2).reshape(batch, time, HEADS * self.head))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class Transformer(nn.Module):
    """Two blocks between an embedding and a readout."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token = nn.Embedding(CLASSES, dim)
        self.blocks = nn.Sequential(Block(dim), Block(dim))
        self.norm, self.readout = nn.LayerNorm(dim), nn.Linear(dim, CLASSES)

    def forward(self, text: Tensor) -> Tensor:
        """Integers `[batch, time]` to logits `[batch, time, classes]`."""
        logits: Tensor = self.readout(self.norm(self.blocks(self.token(text))))
        return logits


@dataclass
class Measured:
    """What was measured on one rank, and of what.

    Args:
        model: before the event.
        event: units that come, by width.
        collectives: that were started.
        peak: bytes.
        seconds: of other events like it.
        machine: as plain collectives and copies show it, without what Python takes.
        expected: of a decision, the sums that the model predicts.
    """

    model: Model
    event: dict[str, int]
    collectives: list[Collective]
    peak: int
    seconds: list[float]
    machine: Machine
    expected: list[Collective] = field(default_factory=list)


def measure(ranks: int, sizes: list[str], repeats: int = REPEATS) -> dict[tuple[str, str], Measured]:
    """On rank 0, by size of the model and kind of event."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_run, (ranks, sizes, repeats, folder), nprocs=ranks)
        found: dict[tuple[str, str], Measured] = torch.load(Path(folder, "found.pt"), weights_only=False)
        return found


def _run(rank: int, ranks: int, sizes: list[str], repeats: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # PyTorch's of names that it has changed
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    found, studies = {}, {}
    for size in sizes:
        for kind in KINDS[:3]:
            studies[size, kind] = _begun(rank, ranks, SIZES[size], kind)
        found[size, "decision"] = _decision(rank, ranks, SIZES[size])
    for _ in range(repeats):  # in turn: how fast the machine is differs from one second to the next
        for study in studies.values():
            study.repeat(ranks)
    found |= {key: study.measured(ranks) for key, study in studies.items()}
    found = {(size, kind): found[size, kind] for size in sizes for kind in KINDS}
    if rank == 0:
        torch.save(found, Path(folder, "found.pt"))
    dist.barrier()
    dist.destroy_process_group()


def _trained(rank: int, ranks: int, dim: int) -> tuple[nn.Module, Any, ds.Structure]:
    """A model that is sharded and has made two steps, so that gradients and state are there."""
    torch.manual_seed(0)
    model = Transformer(dim)
    text = torch.randint(CLASSES, (BATCH, TIME))
    widths = ds.find_widths(model, (text,))
    for each in (*model.blocks, model):
        fully_shard(each, mesh=init_device_mesh("cpu", (ranks,)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rule = ds.Rule(p_add=0.0)
    structure = ds.Structure(model, optimizer, widths=widths, total_steps=1000, rule=rule, interval=1)
    draws = torch.Generator().manual_seed(rank)

    def step() -> None:
        batch = torch.randint(CLASSES, (BATCH, TIME), generator=draws)
        optimizer.zero_grad()
        F.cross_entropy(model(batch).flatten(0, 1), batch.flatten()).backward()
        optimizer.step()

    step()
    structure.step()
    step()
    return model, optimizer, structure


def described(model: nn.Module, optimizer: torch.optim.Optimizer, structure: ds.Structure) -> Model:
    """What `model` predicts from: shapes, bytes, and places of widths."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    parameters = {}
    for parameter, name in names.items():
        state = optimizer.state[parameter].values()
        same = tuple(each.element_size() for each in state if each.shape == parameter.shape)
        gradient = 0 if parameter.grad is None else parameter.grad.element_size()
        parameters[name] = Sharded(tuple(parameter.shape), parameter.element_size(), gradient, same)
    widths = {}
    for name, width in structure.widths.items():
        slots = {(names[slot.tensor], slot.dim): slot for slot in width.slots}
        lengths = {place: slot.tensor.shape[slot.dim] // width.size for place, slot in slots.items()}
        widths[name] = [Place(*place, each) for place, each in lengths.items()]
    readers = {names[slot.tensor] for each in structure.widths.values() for slot in each.having(*READERS)}
    return Model(parameters, widths, readers)


def _chosen(structure: ds.Structure, kind: str) -> list[str]:
    """Widths of the feed-forward networks (one, or all), or of the stream."""
    inner = [name for name, width in structure.widths.items() if name.endswith(".up")]
    stream = max(structure.widths.values(), key=lambda width: len(width.slots)).name
    return {"one": inner[:1], "all": inner, "stream": [stream]}[kind]


def _decisions(structure: ds.Structure, event: dict[str, int]) -> dict[str, Decision]:
    """As many units as the event says go, evenly spread; nothing happens to the other widths."""
    found = {}
    for name, width in structure.widths.items():
        going, units = torch.zeros(width.size, dtype=torch.bool), -event.get(name, 0)
        if units:
            going[(torch.arange(units) * width.size) // units] = True
        found[name] = decision(going.numpy(), 0, structure.states[name])
    return found


@dataclass
class _Study:
    """A kind of event of a model, and what was measured of it until now."""

    structure: ds.Structure
    chosen: list[str]
    model: Model
    event: dict[str, int]
    watch: Watch
    seconds: list[float] = field(default_factory=list)
    plain: list[list[float]] = field(default_factory=list)

    def repeat(self, ranks: int) -> None:
        """Take the time of one more event, of about the same sizes, and of plain work before it."""
        self.plain.append(_plain(self.model, self.event, ranks))
        decisions = _decisions(self.structure, dict.fromkeys(self.chosen, -1))
        dist.barrier()
        begun = time.perf_counter()
        self.structure.carry_out(decisions)
        self.seconds.append(time.perf_counter() - begun)

    def measured(self, ranks: int) -> Measured:
        """What was found."""
        machine = _machine(self.model, self.event, ranks, self.plain)
        seen = self.watch.collectives, self.watch.peak
        return Measured(self.model, self.event, *seen, self.seconds, machine)


def _begun(rank: int, ranks: int, dim: int, kind: str) -> _Study:
    model, optimizer, structure = _trained(rank, ranks, dim)
    chosen = _chosen(structure, kind)
    shape = described(model, optimizer, structure)
    event = {name: -max(1, structure.widths[name].size // 10) for name in chosen}
    with Watch() as watch:
        structure.carry_out(_decisions(structure, event))
    if kind == "all":  # to sizes that "one" does not come to: of shapes that it has seen, PyTorch knows more
        structure.carry_out(_decisions(structure, dict.fromkeys(chosen, -REPEATS - 1)))
    return _Study(structure, chosen, shape, event, watch)


def _decision(rank: int, ranks: int, dim: int) -> Measured:
    model, optimizer, structure = _trained(rank, ranks, dim)
    shape = described(model, optimizer, structure)
    with Watch() as watch:
        structure.step()
    sizes = [width.size for width in structure.widths.values()]
    sums = of_decision(sizes, len(shape.readers), ranks * BATCH * TIME, CLASSES, ranks)
    return Measured(shape, {}, watch.collectives, watch.peak, [], Machine(0.0, 1.0, 1.0, 1.0), sums)


def _machine(model: Model, event: dict[str, int], ranks: int, plain: list[list[float]]) -> Machine:
    """What `_plain` has taken, in the median, as rates."""
    small, large, copy, pick = map(median, zip(*plain, strict=True))
    entries = _largest(model, event)
    received = (ranks - 1) * 4 * (max(LEAST, entries) // ranks)
    return Machine(small, received / max(large - small, 1e-6), 4 * entries / copy, entries / pick)


def _plain(model: Model, event: dict[str, int], ranks: int) -> list[float]:
    """Seconds of plain gathers, of almost nothing and of a large tensor, and of copies of one."""
    entries, places = _largest(model, event), torch.arange(1024)
    one, many = torch.ones(1), torch.ones(max(LEAST, entries) // ranks)
    tables = [torch.ones(entries).view(-1, 1024) for _ in range(min(16, 1 + COLD // entries))]
    return [
        _took([partial(_gather, one, ranks)] * 32),
        _took([partial(_gather, many, ranks)] * 4),
        _took([table.clone for table in tables]),
        _took([partial(table.index_select, 1, places) for table in tables]),
    ]


def _largest(model: Model, event: dict[str, int]) -> int:
    """Entries of the largest parameter that is touched, in whole thousands."""
    return max(1024 * -(-each.entries // 1024) for each in model.touched(event).values())


def _gather(own: Tensor, ranks: int) -> Tensor:
    whole = own.new_empty(ranks * own.numel())
    dist.all_gather_single(whole, own)
    return whole


def _took(work: Sequence[Callable[[], Tensor]]) -> float:
    """Seconds, on average."""
    dist.barrier()
    begun = time.perf_counter()
    for each in work:  # an event gives back what it makes, but for the shards
        each()
    return (time.perf_counter() - begun) / len(work)
