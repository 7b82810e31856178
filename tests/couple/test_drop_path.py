"""Stochastic depth: widths and blocks are found and learned where branches are left out at random."""

import random
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from zoo import libraries
from zoo.checks import assert_finite, assert_unchanged, learn, outputs_of, silent_units_come_and_go, snapshot

import diffstruct as ds
from diffstruct.criteria import removal

RATE = 0.5
TOKENS = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))


def of_each_example(x):
    return (len(x), *[1] * (x.ndim - 1))


class Bernoulli(nn.Module):
    """As timm has it, with a mask that is drawn into new memory."""

    def forward(self, x):
        if not self.training:
            return x
        mask = x.new_empty(of_each_example(x)).bernoulli_(1 - RATE)
        mask.div_(1 - RATE)
        return x * mask


class Floored(nn.Module):
    """As transformers has it: uniform numbers, rounded down."""

    def forward(self, x):
        if not self.training:
            return x
        keep = 1 - RATE
        mask = keep + torch.rand(of_each_example(x), dtype=x.dtype, device=x.device)
        return x.div(keep) * mask.floor_()


class OfBatch(nn.Module):
    """One number for all examples: the code takes one way or the other."""

    def forward(self, x):
        if self.training and torch.rand(()) < RATE:
            return torch.zeros_like(x)
        return x


class Block(nn.Module):
    def __init__(self, drop, size=8, hidden=6):
        super().__init__()
        self.norm, self.drop = nn.LayerNorm(size), drop()
        self.up, self.down = nn.Linear(size, hidden), nn.Linear(hidden, size)
        self.scale = nn.Parameter(torch.full((size,), 1e-5))

    def forward(self, x):
        return x + self.drop(self.scale * self.down(self.up(self.norm(x)).relu()))


class Skipped(Block):
    """The whole block is left out, by Python's own generator."""

    def __init__(self):
        super().__init__(nn.Identity)

    def forward(self, x):
        return x if self.training and random.random() < RATE else super().forward(x)


class LayerDrop(nn.ModuleList):
    """The loop leaves blocks out, which then are not called at all."""

    def forward(self, x):
        for block in self:
            if not (self.training and torch.rand(()) < RATE):
                x = block(x)
        return x


def network(kind):
    if kind is LayerDrop:
        blocks = LayerDrop(Block(nn.Identity) for _ in range(3))
    else:
        blocks = nn.Sequential(*(kind() if kind is Skipped else Block(kind) for _ in range(3)))
    return nn.Sequential(nn.Linear(5, 8), blocks, nn.LayerNorm(8), nn.Linear(8, 3))


KINDS = pytest.mark.parametrize("kind", [Bernoulli, Floored, OfBatch, Skipped, LayerDrop])


@KINDS
@pytest.mark.parametrize("seed", range(2))  # of what is dropped while it is looked at
def test_streams_inner_widths_and_depth_are_found_and_exact(kind, seed):
    torch.manual_seed(seed)
    random.seed(seed)
    model = network(kind).train()
    before = snapshot(model)
    found, depths = ds.find_widths(model, (TOKENS,)), ds.find_depths(model, (TOKENS,))
    assert_unchanged(model, before)
    assert {*found.widths} == {"0", "1.0.up", "1.1.up", "1.2.up"}
    assert {name: depth.size for name, depth in depths.depths.items()} == {"1": 3}
    silent_units_come_and_go(model.double(), (TOKENS.double(),), found.widths.values(), 1e-12)


@KINDS
def test_they_are_learned(kind, monkeypatch):
    monkeypatch.setattr(removal, "FORWARDS_A_STEP", 2)
    torch.manual_seed(0)
    random.seed(0)
    model = network(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    options = {"criterion": ds.TaylorImportance(price=50, annealing=1e-3, settling=1e9), "depth": ["1"]}
    rule = ds.Rule(reserve=3, p_add=1, max_units=99, grace_period=2)
    options |= {"rule": {"1": ds.Rule(max_units=4, grace_period=2), "*": rule}}
    structure = ds.Structure(
        model, optimizer, example_inputs=(TOKENS,), total_steps=24, interval=1, **options
    )
    learn(model, (TOKENS,), optimizer, structure, 24)
    changed = {event.width.rpartition(".")[2] for event in structure.history.events}
    assert changed == {"0", "1", "up"}
    assert_finite(outputs_of(structure.finish(), (TOKENS,)))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.parametrize("build", [libraries.swin, libraries.convnext])
def test_models_of_transformers_have_the_same_widths_with_and_without(build):
    names = []
    for rate in (0.0, RATE):
        torch.manual_seed(0)
        model = build(drop_path_rate=rate).train()
        names.append({*ds.find_widths(model, libraries.LARGER_IMAGES()).widths})
    assert names[0] == names[1] != set()
