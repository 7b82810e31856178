"""Multipliers in a model that has none: trained as the weights that read them, and gone without a trace."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import diffstruct as ds

X = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))


def structured(model, optimizer):
    criterion = ds.Multipliers(ds.L1Price(0.0))
    options = {"total_steps": 100, "criterion": criterion, "start": None, "interval": 1}
    return ds.Structure(model, optimizer, example_inputs=(X,), **options)


def train(model, optimizer, structure=None, steps=5, scheduler=None):
    for _ in range(steps):
        optimizer.zero_grad()
        model(X).square().sum().backward()
        optimizer.step()
        if structure is not None:
            structure.step()
        if scheduler is not None:
            scheduler.step()


def test_they_are_trained_with_the_options_of_the_weights_that_read_them():
    model = mlp()
    groups = [{"params": model[:4].parameters()}, {"params": model[4:].parameters(), "lr": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=0.0)
    structure = structured(model, optimizer)
    assert len(optimizer.param_groups) == 2
    train(model, optimizer, structure, 1)
    first, second = (next(structure.widths[name].having(ds.Role.MULTIPLIER)).tensor for name in ("0", "2"))
    assert (first[:8] == 1).all()  # read by model[2], at a learning rate of 0
    assert (second[:6] != 1).all()


def test_they_have_the_state_that_optimizers_give_when_they_are_made():
    model = mlp()
    optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.5)
    structure = structured(model, optimizer)
    factors = next(structure.widths["0"].having(ds.Role.MULTIPLIER)).tensor
    assert (optimizer.state[factors]["sum"] == torch.full_like(factors, 0.5)).all()
    train(model, optimizer, structure, 1)


SCHEDULERS = [
    lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step),
    lambda optimizer: lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=20),
    lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 20),
]


@pytest.mark.parametrize("make", SCHEDULERS)
@pytest.mark.parametrize("before", [True, False])
def test_schedulers_go_on_before_and_after_finish(make, before):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = make(optimizer) if before else None
    structure = structured(model, optimizer)
    scheduler = scheduler or make(optimizer)
    train(model, optimizer, structure, 5, scheduler)
    train(structure.finish(), optimizer, None, 5, scheduler)
    assert scheduler.last_epoch == 10


def test_named_parameters_keep_their_names():
    model = mlp()
    optimizer = torch.optim.Adam(model.named_parameters(), lr=0.01)
    names = [*optimizer.param_groups[0]["param_names"]]
    structure = structured(model, optimizer)
    train(model, optimizer, structure)
    structure.finish()
    assert optimizer.param_groups[0]["param_names"] == names
    assert len(optimizer.param_groups[0]["params"]) == len(names)


def test_the_parameters_keep_their_order():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    names = [name for name, _ in model.named_parameters()]
    structure = structured(model, optimizer)
    train(model, optimizer, structure)
    plain = structure.finish()
    assert [name for name, _ in plain.named_parameters()] == names
    other = torch.optim.Adam(plain.parameters(), lr=0.01)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(plain, other)


def test_a_price_on_gradients_refuses_a_closure_which_would_undo_it():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    criterion = ds.Multipliers(ds.L1Price(0.1, how="gradient"))
    structure = ds.Structure(
        model, optimizer, example_inputs=(X,), total_steps=100, criterion=criterion, start=None
    )

    def closure():
        optimizer.zero_grad()
        loss = model(X).square().sum()
        loss.backward()
        return loss

    with pytest.raises(ds.StructureError, match="a closure undoes the price"):
        optimizer.step(closure)
    train(model, optimizer, structure)
