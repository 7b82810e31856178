"""Decay in units of how far training moves weights, against NumPy."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import diffstruct as ds
from diffstruct.criteria.decay import Decay, annealing, decay_factors

X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0)).double()
Y = X[:, :3].argmax(1)
STILL = ds.Rule(p_add=0, p_delete=0, p_spontaneous=0, grace_period=2)
OPTIMIZERS = {"SGD": lambda p: torch.optim.SGD(p, 0.1), "Adam": lambda p: torch.optim.Adam(p, 0.01)}


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def structured(model, optimizers, steps=100, interval=1, **options):
    """Units decay, once anything could have been won, and nobody is tried."""
    criterion = ds.TaylorImportance(**{"settling": 1e9, "rise": 0.05, "price": 0.7, **options})
    structure = ds.Structure(
        model,
        optimizers,
        example_inputs=(X,),
        total_steps=steps,
        criterion=criterion,
        rule=STILL,
        interval=interval,
    )
    structure.criterion.removals.find = lambda *_: None
    return structure


def train(model, optimizers, structure, factor=1.0):
    """One step; the reading weights before and after the optimizers' steps, and after the structure's."""
    seen = []

    def look():
        seen.append([model[layer].weight.detach().numpy().copy() for layer in (2, 4)])

    model.zero_grad()
    (factor * F.cross_entropy(model(X), Y)).backward()
    look()
    for optimizer in optimizers:
        optimizer.step()
    look()
    structure.step()
    look()
    return seen


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), rate=st.floats(0.05, 1), steps=st.integers(1, 12))
def test_movement_is_measured_relative_to_the_size_and_averaged(seed, rate, steps):
    chance = np.random.default_rng(seed)
    tensors = [torch.from_numpy(chance.standard_normal(shape)) for shape in ((3, 4), (2,))]
    decay, expected = Decay(rate), [0.0, 0.0]
    for step in range(1, steps + 1):
        before = [tensor.numpy().copy() for tensor in tensors]
        decay.remember(tensors)
        for tensor in tensors:
            tensor += 0.1 * torch.from_numpy(chance.standard_normal(tensor.shape))
        decay.measure(tensors)
        for i, (old, new) in enumerate(zip(before, tensors, strict=True)):
            moved = np.abs(new.numpy() - old).sum() / np.abs(old).sum()
            weight = max(rate, 1 / step)
            expected[i] = (1 - weight) * expected[i] + weight * moved
    np.testing.assert_allclose(decay._movement, expected, rtol=1e-9)


def test_weights_that_are_all_zero_have_not_moved():
    decay, tensor = Decay(1.0), torch.zeros(3)
    decay.remember([tensor])
    tensor += 1
    decay.measure([tensor])
    assert decay._movement == [0.0]


@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("name", [*OPTIMIZERS])
def test_weights_decay_by_the_share_that_they_move(name, interval):
    model = mlp()
    optimizer = OPTIMIZERS[name](model.parameters())
    structure = structured(model, optimizer, interval=interval, decay=2.0, power=1.5)
    movements, decayed = [0.0, 0.0], 0
    left = [model[layer].weight.detach().numpy().copy() for layer in (2, 4)]  # by the decision before
    rate = min(0.1, interval / (0.02 * 100))
    for step in range(1, 100):
        _, after, found = train(model, [optimizer], structure)
        if step % interval:
            assert np.array_equal(found[0], after[0])
            continue
        decision = step // interval
        for i, width in enumerate(("0", "2")):
            moved = np.abs(after[i] - left[i]).sum() / np.abs(left[i]).sum()
            movements[i] += max(rate, 1 / decision) * (moved - movements[i])
            importances = structure.criterion.removals.importance(width)
            ramp = min(1, max(0, (decision - 1 - math.ceil(2 / interval)) / math.ceil(5 / interval)))
            pressure = structure.criterion._pressure
            anneal = min(1, (100 - step) / 10)
            strength = 2.0 * pressure**3 * anneal * movements[i] * ramp
            expected = after[i] * (1 - strength * (0.7 / (importances + 0.7)) ** 1.5)
            np.testing.assert_allclose(found[i], expected, rtol=1e-9)
            decayed += (found[i] != after[i]).any()
        left = found
    assert decayed > 80 // interval


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_nothing_decays_where_nothing_moves(make):
    model = mlp()
    optimizer = make(model.parameters(), lr=0.0)
    structure = structured(model, optimizer)
    before = copy.deepcopy(model.state_dict())
    for _ in range(60):
        train(model, [optimizer], structure)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", [*OPTIMIZERS])
def test_the_decay_ends_where_a_schedule_ends_the_learning_rate(name):
    model = mlp()
    optimizer = OPTIMIZERS[name](model.parameters())
    structure = structured(model, optimizer, steps=300)
    shares = []
    for step in range(200):
        _, after, found = train(model, [optimizer], structure)
        shares.append(np.abs(found[1] - after[1]).sum() / np.abs(after[1]).sum())
        if step == 60:
            optimizer.param_groups[0]["lr"] = 0.0
    assert shares[60] > 1e-4
    assert shares[-1] < 1e-4 * shares[60]


@pytest.mark.parametrize("order", [1, -1])
def test_several_optimizers_are_measured_from_before_the_first(order):
    alone, shared = mlp(), mlp()
    one = [torch.optim.SGD(alone.parameters(), 0.1)]
    layers = [shared[0], shared[2], shared[4]]
    several = [torch.optim.SGD(layer.parameters(), 0.1) for layer in layers][::order]
    structures = structured(alone, one[0]), structured(shared, several)
    for _ in range(60):
        expected = train(alone, one, structures[0])
        found = train(shared, several, structures[1])
    for mine, theirs in zip(found[2], expected[2], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert (expected[2][1] != expected[1][1]).any()
    assert structures[0].criterion._decay._movement == structures[1].criterion._decay._movement


def test_only_what_the_optimizer_moves_decays():
    model = mlp()
    groups = [
        {"params": layer.parameters(), "lr": lr}
        for layer, lr in zip(model[::2], (0.1, 0.1, 0.0), strict=True)
    ]
    optimizer = torch.optim.SGD(groups)
    structure = structured(model, optimizer)
    before = model[4].weight.detach().clone()
    for _ in range(60):
        _, after, found = train(model, [optimizer], structure)
    assert torch.equal(model[4].weight, before)
    assert (found[0] != after[0]).any()


def test_a_step_that_was_left_out_is_forgotten():
    """As a `GradScaler` does where gradients overflow."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    structure = structured(model, optimizer)
    for _ in range(30):
        train(model, [optimizer], structure)
    tracker, seen = structure.criterion.tracker, structure.criterion._decay._seen
    fisher, state = copy.deepcopy(tracker.fisher), copy.deepcopy(model.state_dict())
    train(model, [], structure, factor=math.inf)
    assert all(np.array_equal(tracker.fisher[name], values) for name, values in fisher.items())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert structure.criterion._decay._seen == seen
    assert structure.steps == 31
    train(model, [optimizer], structure)
    assert structure.criterion._decay._seen == seen + 1


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**10])
def test_the_decay_does_not_change_with_the_scale_of_the_loss(factor):
    runs = []
    for scale in (1.0, factor):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.125 / scale)
        structure = structured(model, optimizer)
        for _ in range(40):
            seen = train(model, [optimizer], structure, scale)
        assert (seen[2][1] != seen[1][1]).any()
        runs.append(seen[2][1])
    np.testing.assert_allclose(*runs, rtol=1e-9)


@settings(deadline=None, max_examples=100)
@given(
    amounts=st.lists(st.floats(0, 1e3), min_size=1, max_size=8),
    age=st.integers(0, 50),
    price=st.floats(1e-6, 10),
    strength=st.floats(0, 3),
    power=st.floats(0.1, 4),
    grace_period=st.integers(0, 20),
    rise=st.integers(1, 30),
)
def test_more_important_units_decay_less(amounts, age, price, strength, power, grace_period, rise):
    amounts = np.sort(amounts)
    ages = np.full(len(amounts), age)
    factors = decay_factors(amounts, ages, price, strength, power, grace_period, rise)
    assert (factors >= 0).all()
    assert (factors <= 1).all()
    assert (np.diff(factors) >= 0).all()
    older = decay_factors(amounts, ages + 1, price, strength, power, grace_period, rise)
    assert (older <= factors).all()
    if age <= grace_period:
        assert (factors == 1).all()
    if age >= grace_period + rise and strength > 1e-3:  # a unit of no importance decays in full
        nothing = decay_factors(np.zeros(1), ages[:1], price, strength, power, grace_period, rise)
        assert nothing[0] == pytest.approx(max(0, 1 - strength))


def test_the_decay_of_a_unit_as_important_as_its_price():
    (factor,) = decay_factors(np.array([0.25]), np.array([13]), 0.25, 0.5, 2.0, 10, 6)
    assert factor == 1 - 0.5 * 0.5 * 0.25  # half of the strength, half of the ramp, half to the power of 2


def test_the_decay_is_annealed_to_nothing_over_the_end_of_the_run():
    due = [annealing(update, 1000, 0.1) for update in (1, 500, 900, 925, 950, 1000, 1200)]
    assert due == pytest.approx([1, 1, 1, 0.75, 0.5, 0, 0])
