"""Training with a `GradScaler`: hooks see scaled gradients, and yet the structure learned is the same."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import diffstruct as ds

CHANCE = torch.Generator().manual_seed(0)
X = torch.randn(256, 8, generator=CHANCE)
Y = (X[:, :4] * X[:, 4:]).argmax(1)
STEPS = 70


def softmax(out, y):
    return F.cross_entropy(out, y)


def sigmoid(out, y):
    return F.binary_cross_entropy_with_logits(out, F.one_hot(y, 4).float())


def squared(out, y):
    return F.mse_loss(out, F.one_hot(y, 4).float())


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.3),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.01),
    "fused": lambda parameters: torch.optim.Adam(parameters, 0.01, fused=True),  # unscales by itself
}


def run(scale, loss=softmax, optimizer="sgd", parts=1, clip=False, criterion=None):
    """Train with units that come and go; a scale of None is a run without a scaler."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 4))
    made = OPTIMIZERS[optimizer](model.parameters())
    structure = ds.Structure(
        model,
        made,
        example_inputs=(X[:4],),
        total_steps=STEPS,
        criterion=criterion or ds.TaylorImportance(price=2.0, settling=100.0),
        rule=None if criterion else ds.Rule(max_units=40, p_add=0.1, min_reserve=1, reserve=0.05),
        interval=2,
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
    for step in range(STEPS):
        made.zero_grad()
        rows = torch.arange(32 * step, 32 * step + 32) % len(X)
        for some in rows.chunk(parts):
            scaler.scale(loss(model(X[some]), Y[some]) / parts).backward()
        if clip:
            scaler.unscale_(made)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(made)
        scaler.update()
        structure.step()
    structure.finish()
    return structure, model


def decisions(structure):
    return structure.steps, [(e.step, e.width, e.removed, e.added) for e in structure.history.events]


CASES = [
    {"loss": softmax, "optimizer": "fused", "parts": 2},
    {"loss": softmax, "optimizer": "sgd", "clip": True},
    {"loss": sigmoid, "optimizer": "adam", "parts": 4, "clip": True},
    {"loss": squared, "optimizer": "fused", "clip": True},
    {"loss": squared, "optimizer": "sgd", "parts": 2},
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_scaler_whose_scale_is_a_power_of_two_changes_no_decision_and_no_bit(case):
    plain, model = run(None, **case)
    assert plain.history.removed() > 0
    assert plain.history.added() > 0
    structure, other = run(2.0**16, **case)
    assert decisions(structure) == decisions(plain)
    for mine, expected in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, expected)


@pytest.mark.parametrize("optimizer", ["sgd", "fused"])
def test_a_price_that_is_paid_by_gradient_is_scaled_along(optimizer):
    criterion = ds.OutgoingNorm(ds.L1Price(0.01, how="gradient"))
    plain, model = run(None, squared, optimizer, criterion=criterion)
    structure, other = run(2.0**12, squared, optimizer, criterion=criterion)
    assert decisions(structure) == decisions(plain)
    for mine, expected in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, expected)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_of_several_optimizers_a_scaler_leaves_out_the_steps_of_those_that_overflow(first, fused, nonfinite):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 4))
    parts = [*model[0].parameters(), *model[4].parameters()], [*model[2].parameters()]
    optimizers = [torch.optim.Adam(each, 0.01, fused=fused) for each in parts]
    options = {"interval": 2, "nonfinite": nonfinite}
    structure = ds.Structure(model, optimizers, example_inputs=(X,), total_steps=12, **options)
    scaler, overflows = torch.amp.GradScaler("cpu", init_scale=2.0**10), False
    model[2].weight.register_hook(lambda gradient: gradient * (math.inf if overflows else 1.0))
    for step in range(12):
        overflows = step in (3, 4)  # the first of them is one that a decision is about
        before = [model[place].weight.detach().clone() for place in (0, 2)]
        for each in optimizers:
            each.zero_grad()
        scaler.scale(softmax(model(X), Y)).backward()
        for each in optimizers[::-1] if first else optimizers:
            scaler.step(each)
        scaler.update()
        structure.step()
        assert not torch.equal(model[0].weight, before[0])
        assert torch.equal(model[2].weight, before[1]) == overflows
    assert structure.criterion.tracker.observations == 5
    assert structure.guard.skipped == 0
    assert structure.steps == 12


def test_gradients_that_become_infinite_behind_the_scalers_back_are_seen():
    model = nn.Sequential(nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 4))
    optimizers = [torch.optim.SGD(model[place].parameters(), 0.1) for place in (0, 2)]
    structure = ds.Structure(model, optimizers, example_inputs=(X,), total_steps=12)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(softmax(model(X), Y)).backward()
    scaler.unscale_(optimizers[0])
    model[0].weight.grad[0, 0] = math.inf  # as clipping may
    with pytest.raises(ds.DivergenceError, match=r"0\.weight"):
        scaler.step(optimizers[0])
    assert structure.steps == 0
