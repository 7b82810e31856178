"""Copies: a structure that is copied with its model is alive, and copies that it follows keep their sizes."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import diffstruct as ds
from diffstruct.criteria import removal

X = torch.randn(32, 5, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)
EAGER = ds.Rule(p_add=0.5, p_delete=0.5, max_units=32, grace_period=3)
TAYLOR = ds.TaylorImportance(price=1, settling=1e9)  # removes units from the start of the run on
CRITERIA = [
    TAYLOR,
    ds.OutgoingNorm(ds.L1Price(0.02)),
    ds.Multipliers(ds.L1Price(1e-3, how="gradient")),
]


@pytest.fixture(autouse=True)
def measure_at_each_step(monkeypatch):
    monkeypatch.setattr(removal, "FORWARDS_A_STEP", 2)


def made(criterion, start=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    structure = ds.Structure(
        model,
        optimizer,
        example_inputs=(X,),
        total_steps=100,
        criterion=criterion,
        rule=EAGER,
        start=start,
        interval=1,
    )
    return model, optimizer, structure


def train(model, optimizer, structure, steps, gradients=None):
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X), Y)
        if gradients is None:
            loss.backward()
        else:
            gradients(loss, [*model.parameters()])
        optimizer.step()
        structure.step()


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_copy_of_all_three_goes_on_bit_for_bit_as_the_original(criterion):
    original = made(criterion)
    train(*original, 15)
    copied = copy.deepcopy(original)
    added, removed = original[2].history.added(), original[2].history.removed()
    for each in (copied, original):
        train(*each, 30)
    assert copied[2].history.events == original[2].history.events
    assert original[2].history.added() > added
    assert original[2].history.removed() > removed
    mine, theirs = (each[2].finish().state_dict() for each in (copied, original))
    torch.testing.assert_close(dict(mine), dict(theirs), rtol=0, atol=0)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_copy_does_not_touch_the_original(criterion):
    original = made(criterion)
    train(*original, 10)
    before = copy.deepcopy((original[0].state_dict(), original[2].history.events))
    sizes = [width.size for width in original[2].widths.values()]
    copied = copy.deepcopy(original)
    train(*copied, 20)
    copied[2].finish()
    assert [width.size for width in original[2].widths.values()] == sizes
    torch.testing.assert_close(dict(original[0].state_dict()), dict(before[0]), rtol=0, atol=0)
    assert original[2].history.events == before[1]


def by_autograd(loss, parameters):
    """Gradients that no hook sees."""
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient


def test_gradients_that_no_hook_sees_are_learned_from_all_the_same():
    runs = [made(TAYLOR) for _ in range(2)]
    for run, gradients in zip(runs, (None, by_autograd), strict=True):
        train(*run, 60, gradients)
    assert runs[0][2].history.added()
    assert runs[0][2].history.removed()
    assert runs[1][2].history.events == runs[0][2].history.events
    mine, theirs = (run[2].criterion.tracker.fisher for run in runs)
    for name, fisher in theirs.items():
        assert fisher.any()
        np.testing.assert_array_equal(mine[name], fisher)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_an_average_that_is_followed_keeps_its_sizes(criterion):
    model, optimizer, structure = made(criterion, start=2)
    average = AveragedModel(model, avg_fn=lambda old, new, count: new)
    structure.follow(average)
    for _ in range(12):
        train(model, optimizer, structure, 4)
        assert average(X).shape == (32, 3)
        average.update_parameters(model)
        torch.testing.assert_close(average(X), model(X))
    assert structure.history.added()
    assert structure.history.removed()


class Multiplied(nn.Module):
    """A hidden layer with a multiplier of its own."""

    def __init__(self):
        super().__init__()
        self.one, self.factor, self.two = nn.Linear(5, 8), ds.nn.Multiplier(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.two(self.factor(torch.relu(self.one(x))))


@pytest.mark.parametrize("kind", [None, Multiplied])
def test_an_average_goes_on_after_finish(kind):
    torch.manual_seed(0)
    model = Multiplied() if kind else nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    criterion = ds.Multipliers(ds.L1Price(1e-3))
    options = {"total_steps": 100, "criterion": criterion, "rule": EAGER, "start": None, "interval": 1}
    structure = ds.Structure(model, optimizer, example_inputs=(X,), **options)
    average = AveragedModel(model, avg_fn=lambda old, new, count: new)
    structure.follow(average)
    train(model, optimizer, structure, 20)
    average.update_parameters(model)
    plain = structure.finish()
    torch.testing.assert_close(average(X), plain(X))
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(X), Y).backward()
        optimizer.step()
    average.update_parameters(plain)
    torch.testing.assert_close(average(X), plain(X))
    assert [name for name, _ in average.module.named_parameters()] == [
        name for name, _ in plain.named_parameters()
    ]
