"""Prices: the proximal step against its definition, the paper's two steps against their formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import diffstruct as ds
from diffstruct.criteria.l1 import sign_step, soft_threshold, subgradient

# Products of subnormal numbers round to zero; nothing is promised about them.
NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)
STRENGTHS = st.floats(0, 1e3, allow_subnormal=False)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def prox(value, strength):
    return soft_threshold(tensor(value), strength).item()


@pytest.mark.parametrize("strength", [0.0, 0.1, 0.75, 3.0])
@pytest.mark.parametrize("weight", [-2.0, -0.75, -0.1, 0.0, 0.05, 0.7505, 1.9])
def test_soft_threshold_is_the_argmin_by_brute_force(weight, strength):
    grid = np.linspace(-3, 3, 60001)  # 1e-4 apart; the objective is strictly convex
    objective = (grid - weight) ** 2 / 2 + strength * abs(grid)
    assert abs(prox(weight, strength) - grid[objective.argmin()]) < 1e-4


@settings(deadline=None, max_examples=200)
@given(NUMBERS, STRENGTHS)
def test_soft_threshold_satisfies_the_optimality_condition(weight, strength):
    v = prox(weight, strength)
    if v == 0:  # 0 lies in the subdifferential: the weight does not outweigh the price
        assert abs(weight) <= strength
    else:  # v - w + strength * sign(v) = 0
        assert v - weight + math.copysign(strength, v) == pytest.approx(0, abs=1e-15 * (1 + abs(weight)))


@settings(deadline=None, max_examples=200)
@given(NUMBERS, NUMBERS, STRENGTHS)
def test_soft_threshold_is_firmly_non_expansive(a, b, strength):
    step = prox(a, strength) - prox(b, strength)
    assert abs(step) <= abs(a - b) + 1e-9
    assert step * step <= step * (a - b) + 1e-15 * (1 + abs(a) + abs(b)) ** 2


@settings(deadline=None, max_examples=200)
@given(NUMBERS, STRENGTHS)
def test_soft_threshold_keeps_the_sign_or_gives_zero_within_the_strength(weight, strength):
    v = prox(weight, strength)
    assert v == -prox(-weight, strength)
    assert v * weight >= 0
    assert abs(v) == max(0.0, abs(weight) - strength)


@settings(deadline=None, max_examples=100)
@given(st.lists(NUMBERS, min_size=1, max_size=5), STRENGTHS)
def test_the_two_steps_of_the_paper_by_their_formulas(weights, strength):
    signs = [(weight > 0) - (weight < 0) for weight in weights]
    assert subgradient(tensor(*weights), strength).tolist() == [strength * sign for sign in signs]
    expected = [weight - strength * sign for weight, sign in zip(weights, signs, strict=True)]
    assert sign_step(tensor(*weights), strength).tolist() == expected


@pytest.mark.parametrize("function", [soft_threshold, sign_step, subgradient])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_functions_are_pure_and_keep_shape_and_type(function, dtype):
    weights = torch.tensor([[1.0, -2.0, 0.0], [0.25, -0.25, 4.0]], dtype=dtype)
    before = weights.clone()
    result = function(weights, 0.5)
    assert result.shape == weights.shape
    assert result.dtype == dtype
    assert torch.equal(weights, before)


def test_the_sign_step_oscillates_where_the_proximal_step_rests():
    weight = tensor(0.4)
    assert sign_step(sign_step(weight, 1.0), 1.0).item() == pytest.approx(0.4)
    assert soft_threshold(soft_threshold(weight, 1.0), 1.0).item() == 0


WEIGHTS, GRADIENT = (0.5, -0.5, 0.05, 0.0), (1.0, 2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("how", "floor", "gradient", "weights"),
    [
        ("proximal", None, GRADIENT, (0.4, -0.4, 0.0, 0.0)),
        ("sign", None, GRADIENT, (0.4, -0.4, -0.05, 0.0)),
        ("gradient", None, (1.1, 1.9, 3.1, 4.0), WEIGHTS),
        ("proximal", 0.025, GRADIENT, (0.4, 0.025, 0.025, 0.025)),
        ("sign", -0.1, GRADIENT, (0.4, -0.1, -0.05, 0.0)),
        ("gradient", 0.1, (1.1, 1.9, 3.1, 4.0), (0.5, 0.1, 0.1, 0.1)),
        ("sign", 0.0, GRADIENT, (0.4, 0.0, 0.0, 0.0)),
    ],
)
def test_a_price_is_paid_where_it_says(how, floor, gradient, weights):
    price = ds.L1Price(0.1, how=how, floor=floor)
    parameter = nn.Parameter(tensor(*WEIGHTS))
    parameter.grad = tensor(*GRADIENT)
    identities = id(parameter), parameter.data_ptr(), parameter.grad.data_ptr()

    price.before_step(parameter)
    assert parameter.tolist() == list(WEIGHTS)
    assert parameter.grad.tolist() == pytest.approx(gradient, abs=1e-15)
    price.after_step(parameter)
    assert parameter.tolist() == pytest.approx(weights, abs=1e-15)
    assert parameter.grad.tolist() == pytest.approx(gradient, abs=1e-15)
    # In place, and no part of any graph.
    assert identities == (id(parameter), parameter.data_ptr(), parameter.grad.data_ptr())
    assert parameter.requires_grad
    assert parameter.is_leaf


@pytest.mark.parametrize("how", ["proximal", "sign", "gradient"])
def test_a_weight_without_gradient_is_no_error(how):
    parameter = nn.Parameter(tensor(*WEIGHTS))
    ds.L1Price(0.1, how=how).before_step(parameter)
    assert parameter.grad is None
    assert parameter.tolist() == list(WEIGHTS)


@pytest.mark.parametrize("how", ["proximal", "sign", "gradient"])
def test_a_price_of_zero_changes_nothing(how):
    price, parameter = ds.L1Price(0, how=how), nn.Parameter(tensor(*WEIGHTS))
    parameter.grad = tensor(*GRADIENT)
    price.before_step(parameter)
    price.after_step(parameter)
    assert parameter.tolist() == list(WEIGHTS)
    assert parameter.grad.tolist() == list(GRADIENT)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        *[("strength", value) for value in (-1e-9, math.nan, math.inf)],
        *[("how", value) for value in ("l1", "", None)],
        *[("floor", value) for value in (math.nan, math.inf)],  # would make every weight so
    ],
)
def test_parameters_that_cannot_work_raise_and_are_named(parameter, value):
    with pytest.raises(ds.ConfigurationError, match=parameter):
        ds.L1Price(**({"strength": 0.1} | {parameter: value}))
