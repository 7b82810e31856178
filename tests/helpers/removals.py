"""A network that has learned all that it can, and what finds the units that it does not need."""

from __future__ import annotations

import copy

import torch
from helpers.draws import drawn
from torch import nn
from torch.nn import functional as F

import diffstruct as ds

RULE = ds.Rule(p_add=0, p_delete=0, p_spontaneous=0, grace_period=0)
EAGER = ds.Rule(p_add=0, p_delete=1, p_spontaneous=0, grace_period=1)
STEPS, BATCH = 440, 256


class Net(nn.Module):
    """A hidden layer; it counts its runs, and fails when told to."""

    def __init__(self, hidden):
        super().__init__()
        self.one, self.two = nn.Linear(4, hidden), nn.Linear(hidden, 3)
        self.runs, self.failing = 0, False

    def forward(self, x):
        if not torch.is_grad_enabled():
            self.runs += 1
            if self.failing:
                raise RuntimeError("out of memory")
        return self.two(torch.tanh(self.one(x)))


def net(kind):
    """Three different units (`"three"`), or each of them six times (`"sixfold"`)."""
    torch.manual_seed(3)
    model = Net(3).double()
    with torch.no_grad():
        model.one.weight.copy_(torch.eye(3, 4) * 1.5)
        model.two.weight.mul_(8)
    if kind == "sixfold":
        wide = Net(18).double()
        with torch.no_grad():
            wide.one.weight.copy_(model.one.weight.repeat(6, 1))
            wide.one.bias.copy_(model.one.bias.repeat(6))
            wide.two.weight.copy_(model.two.weight.repeat(1, 6) / 6)
            wide.two.bias.copy_(model.two.bias)
        return wide
    return model


def structured(kind="three", rule=RULE, steps=STEPS, interval=1, **options):
    """A model that has learned all that it can: its targets are drawn from its outputs. Nothing moves."""
    model = net(kind)
    chance = torch.Generator().manual_seed(1)
    x = torch.randn(8192, 4, generator=chance, dtype=torch.float64)
    y = drawn(model(x).detach().softmax(1), chance)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    settings = {"price": 0.2, "memory": 1.0, "settling": 1e6, **options}
    structure = ds.Structure(
        model,
        optimizer,
        example_inputs=(x[:8],),
        total_steps=steps,
        criterion=ds.TaylorImportance(**settings),
        rule=rule,
        interval=interval,
    )
    model.runs = 0
    return model, optimizer, structure, x, y


def train(model, optimizer, structure, x, y, steps, loss=F.cross_entropy):
    for step in range(steps):
        rows = slice(step * BATCH % len(x), step * BATCH % len(x) + BATCH)
        optimizer.zero_grad()
        loss(model(x[rows]), y[rows]).backward()
        optimizer.step()
        structure.step()


def observed(kind="three", rule=RULE, **options):
    """After 60 observations; nothing was tried, and the next `find` may try what it likes."""
    model, optimizer, structure, x, y = structured(kind, rule, **options)
    train(model, optimizer, structure, x, y, 60)
    removals = structure.criterion.removals
    assert not removals.pending
    assert model.runs == 0
    removals.credit = 100.0
    return model, structure, removals


def find(structure, removals, pressure=1.0):
    ages = {name: state.ages for name, state in structure.states.items()}
    removals.find(structure.steps, ages, pressure)


def weights(model):
    return copy.deepcopy(model.state_dict())


def assert_equal(model, before):
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
