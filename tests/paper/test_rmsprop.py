"""ClippedRMSprop against the formula in a plain NumPy loop."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import diffstruct as ds
from diffstruct.paper import ClippedRMSprop

EPS = 1e-8


def numpy_step(weights, gradient, square, lr=0.01, decay=0.99, limit=0.01):
    """One update of revision 3, in place."""
    square[:] = decay * square + (1 - decay) * gradient**2
    update = lr * gradient / np.sqrt(square + EPS)
    clipped = np.clip(update, -limit, limit)
    weights -= clipped
    return np.abs(update) > limit


def parameter(*shape, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(shape, generator=chance, dtype=torch.float64))


def gradients(shape, steps, seed=1):
    """Gradients whose size swings over four orders of magnitude, so that some updates are clipped."""
    chance = np.random.default_rng(seed)
    return [chance.standard_normal(shape) * 10 ** chance.uniform(-3, 1) for _ in range(steps)]


@pytest.mark.parametrize("initial", [0.0, 0.01, 2.0])
@pytest.mark.parametrize(
    "options", [{}, {"lr": 0.1, "decay": 0.5, "limit": 0.05}, {"decay": 0.0, "lr": 0.005}]
)
def test_follows_the_formula_over_many_steps(initial, options):
    w = parameter(3, 4)
    optimizer = ClippedRMSprop([w], initial=initial, **options)
    weights, square = w.detach().numpy().copy(), np.full((3, 4), initial)
    clipped = []
    for gradient in gradients((3, 4), 200):
        w.grad = torch.from_numpy(gradient)
        optimizer.step()
        clipped.append(numpy_step(weights, gradient, square, **options))
    np.testing.assert_allclose(w.detach().numpy(), weights, rtol=0, atol=1e-12)
    np.testing.assert_allclose(optimizer.state[w]["square_avg"].numpy(), square, rtol=1e-12)
    if options.get("decay") != 0:  # without memory every update is lr in size
        assert 0 < np.mean(clipped) < 1


def test_groups_have_their_own_initial_value_and_options():
    first, second = parameter(2), parameter(2, seed=1)
    groups = [
        {"params": [first], "initial": 0.01},
        {"params": [second], "lr": 0.02, "decay": 0.9, "limit": 0.5},
    ]
    optimizer = ClippedRMSprop(groups, limit=0.03)
    expected = [(first.detach().numpy().copy(), np.full(2, 0.01), {"limit": 0.03})]
    options = {"lr": 0.02, "decay": 0.9, "limit": 0.5}
    expected.append((second.detach().numpy().copy(), np.zeros(2), options))
    for gradient in gradients(2, 50):
        for tensor, (weights, square, own) in zip((first, second), expected, strict=True):
            tensor.grad = torch.from_numpy(gradient.copy())
            numpy_step(weights, gradient, square, **own)
        optimizer.step()
    for tensor, (weights, _, _) in zip((first, second), expected, strict=True):
        np.testing.assert_allclose(tensor.detach().numpy(), weights, rtol=0, atol=1e-12)


def test_an_initial_value_above_zero_makes_the_first_update_small():
    steps = {}
    for initial in (0.0, 0.01):
        w = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = ClippedRMSprop([w], initial=initial, limit=1.0)
        w.grad = torch.tensor([0.001], dtype=torch.float64)
        optimizer.step()
        steps[initial] = -w.item()
    # From zero, lr * g / sqrt(0.01 g^2) = 10 lr, but for eps; from 0.01, about lr * g / 0.1.
    assert steps[0.0] == pytest.approx(0.01 * 0.001 / math.sqrt(0.01 * 1e-6 + EPS))
    assert steps[0.01] == pytest.approx(0.01 * 0.001 / math.sqrt(0.0099 + 0.01 * 1e-6 + EPS))


def test_the_closure_runs_with_gradients_and_its_loss_comes_back():
    w = parameter(3)
    optimizer = ClippedRMSprop([w])
    before = w.detach().clone()

    def closure():
        optimizer.zero_grad()
        loss = w.pow(2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == before.pow(2).sum().item()
    weights = before.numpy().copy()
    numpy_step(weights, 2 * before.numpy(), np.zeros(3))
    np.testing.assert_allclose(w.detach().numpy(), weights, rtol=0, atol=1e-12)
    assert optimizer.step() is None


def test_a_parameter_without_gradient_waits():
    here, absent, alone = parameter(2), parameter(2, seed=1), parameter(2, seed=2)
    optimizer = ClippedRMSprop([{"params": [here, absent]}, {"params": [alone]}], initial=0.01)
    before = absent.detach().clone()
    here.grad = torch.ones_like(here)
    for _ in range(3):
        optimizer.step()
    assert torch.equal(absent, before)
    assert absent not in optimizer.state
    assert alone not in optimizer.state
    # Its accumulator begins with its first gradient, not before.
    absent.grad = torch.ones_like(absent)
    optimizer.step()
    expected = 0.99 * 0.01 + 0.01
    assert optimizer.state[absent]["square_avg"].tolist() == pytest.approx([expected] * 2)


def test_the_gradient_is_left_as_it_was():
    w = parameter(3)
    w.grad = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    ClippedRMSprop([w]).step()
    assert w.grad.tolist() == [1.0, -2.0, 3.0]


def test_a_saved_state_goes_on_bit_for_bit():
    start, updates = parameter(4), gradients(4, 20)
    w = nn.Parameter(start.detach().clone())
    optimizer = ClippedRMSprop([w], lr=0.02, initial=0.01)
    for index, gradient in enumerate(updates):
        if index == 10:
            saved = optimizer.state_dict()
            w = nn.Parameter(w.detach().clone())
            optimizer = ClippedRMSprop([w])  # its options come with the state
            optimizer.load_state_dict(saved)
        w.grad = torch.from_numpy(gradient)
        optimizer.step()
    whole = nn.Parameter(start.detach().clone())
    optimizer = ClippedRMSprop([whole], lr=0.02, initial=0.01)
    for gradient in updates:
        whole.grad = torch.from_numpy(gradient)
        optimizer.step()
    assert torch.equal(w, whole)


def test_new_units_begin_with_their_own_value():
    model = nn.ModuleDict({"rnn": ds.nn.RNN(3, 2), "readout": nn.Linear(2, 2)})
    model["rnn"].feeds(model["readout"])
    groups = [
        {"params": model["rnn"].parameters(), "new_unit": 0.5},
        {"params": model["readout"].parameters()},
    ]
    optimizer = ClippedRMSprop(groups, initial=0.1, new_unit=0.25)
    rule = ds.Rule(threshold=1e-6, reserve=3, p_add=1)  # both units are above, so three come
    structure = ds.Structure(
        model, optimizer, total_steps=100, criterion=ds.OutgoingNorm(), rule=rule, start=None
    )
    model["readout"](model["rnn"](torch.ones(4, 1, 3))[0]).sum().backward()
    optimizer.step()
    squares = {
        name: optimizer.state[tensor]["square_avg"].clone() for name, tensor in model.named_parameters()
    }
    structure.step()

    after = {name: optimizer.state[tensor]["square_avg"] for name, tensor in model.named_parameters()}
    assert torch.equal(after["rnn.weight_ih_l0"][:2], squares["rnn.weight_ih_l0"])
    assert torch.equal(after["rnn.weight_ih_l0"][2:], torch.full((3, 3), 0.5))
    assert torch.equal(after["readout.weight"][:, :2], squares["readout.weight"])
    assert torch.equal(after["readout.weight"][:, 2:], torch.full((2, 3), 0.25))
    assert torch.equal(after["readout.bias"], squares["readout.bias"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("lr", "limit", "eps") for value in (0, -0.1, math.nan)],
        *[(name, value) for name in ("initial", "new_unit") for value in (-0.1, math.nan)],
        *[("decay", value) for value in (-0.1, 1, 1.5, math.nan)],
    ],
)
def test_parameters_that_cannot_work_raise_and_are_named(name, value):
    with pytest.raises(ds.ConfigurationError, match=f"{name}={value}"):
        ClippedRMSprop([parameter(1)], **{name: value})
