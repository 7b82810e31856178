"""The parameters of a rule, and the importances that it accepts."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rule.rules import DTYPES, PAPER, cases, generator, importances_of, paper, reserve_of, rules

import diffstruct as ds
from diffstruct.rule import Rule, RuleState


@settings(max_examples=200)
@given(cases())
def test_a_decision_depends_on_its_arguments_alone_and_changes_none(case):
    rule, _, importances, state, seed = case
    before = importances.clone(), state.ages.copy(), state.risen.copy()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one, other = (rule.decide(importances, state, generator(seed)) for _ in range(2))
    assert (one.keep, one.add) == (other.keep, other.add)
    assert np.array_equal(one.state.ages, other.state.ages)
    assert np.array_equal(one.state.risen, other.state.risen)
    assert torch.equal(importances, before[0])
    one.state.ages.fill(-1)  # the new memory is not the old one
    assert np.array_equal(state.ages, before[1])
    assert np.array_equal(state.risen, before[2])
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize(
    ("reserve", "size", "expected"),
    [(3, 1, 3), (3, 50, 3), (0, 9, 0), (0.25, 1, 1), (0.25, 7, 1), (0.25, 8, 2), (0.25, 80, 20), (0.5, 3, 1)],
)
def test_reserve_as_a_count_or_a_fraction(reserve, size, expected):
    assert reserve_of(paper(reserve=reserve), size) == expected


@pytest.mark.parametrize(("size", "expected"), [(1, 4), (13, 4), (17, 5), (40, 12)])
def test_a_reserve_that_is_a_fraction_is_at_least_min_reserve(size, expected):
    assert reserve_of(paper(reserve=0.3, min_reserve=4), size) == expected
    assert reserve_of(paper(reserve=3, min_reserve=4), size) == 3  # a count is taken as it is


@settings(max_examples=100)
@given(rules(), st.floats(0.01, 0.99) | st.integers(0, 100), st.integers(1, 3000), st.integers(1, 20))
def test_a_rule_that_is_asked_at_an_interval_has_the_same_rates_per_step(rule, grace_period, steps, interval):
    rule = dataclasses.replace(rule, grace_period=grace_period)
    timed = rule.timed(steps, interval)
    count = grace_period if isinstance(grace_period, int) else math.ceil(grace_period * steps)
    assert isinstance(timed.grace_period, int)
    assert count <= timed.grace_period * interval < count + interval  # in steps, rounded up
    for name in ("p_add", "p_delete", "p_spontaneous"):  # that nothing happens in so many steps
        assert 1 - getattr(timed, name) == pytest.approx((1 - getattr(rule, name)) ** interval)
    assert abs(timed.redraw_after * interval - rule.redraw_after) <= interval
    assert (timed.redraw_after == 0) == (rule.redraw_after == 0)  # 0 is never
    same = ("threshold", "reserve", "min_reserve", "min_units", "max_units")
    assert all(getattr(timed, name) == getattr(rule, name) for name in same)
    assert rule.timed(steps) == dataclasses.replace(rule, grace_period=count)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threshold", [0.05, 0.1, 1 / 3])
def test_a_unit_exactly_at_the_threshold_is_below_it(dtype, threshold):
    rule = paper(threshold=threshold, reserve=0, p_delete=1, p_spontaneous=0)
    at = torch.tensor([threshold, 2 * threshold], dtype=dtype)
    assert rule.decide(at, RuleState.initial(2), generator()).keep == (1,)
    just_above = torch.nextafter(at, torch.tensor(10.0, dtype=dtype))
    assert rule.decide(just_above, RuleState.initial(2), generator()).keep == (0, 1)


def test_importances_may_require_gradients():
    importances = importances_of("+-").requires_grad_()
    assert paper().decide(importances, RuleState.initial(2), generator()).size == 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "values", [[math.nan], [1, math.nan], [math.inf, 0], [0, -math.inf], [math.inf, -math.inf]]
)
def test_importances_that_are_not_finite_are_refused(values, dtype):
    with pytest.raises(ds.DivergenceError, match="learning rate"):
        paper().decide(torch.tensor(values, dtype=dtype), RuleState.initial(len(values)), generator())


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16])
def test_importances_whose_sum_overflows_are_accepted(dtype):
    largest = torch.full((3,), torch.finfo(dtype).max, dtype=dtype)  # their sum is infinite
    decision = paper(p_spontaneous=0, p_add=0).decide(largest, RuleState.initial(3), generator())
    assert decision.keep == (0, 1, 2)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        *[("threshold", value) for value in (0, -0.1, math.nan, math.inf, -math.inf)],
        *[
            (name, value)
            for name in ("p_add", "p_delete", "p_spontaneous")
            for value in (-0.01, 1.01, math.nan, math.inf)
        ],
        *[("reserve", value) for value in (99, 100, -1, 0.0, 1.0, -0.5, 1.5, math.nan)],
        *[("min_units", value) for value in (0, -1, 100)],
        *[("max_units", value) for value in (0, -5, 9.5)],
        *[("redraw_after", value) for value in (-1, 2.5)],
        *[("min_reserve", value) for value in (-1, 1.5)],
        *[("grace_period", value) for value in (-1, 0.0, 1.0, 1.5, -0.5, math.nan)],
    ],
)
def test_parameters_that_cannot_work_are_refused_by_name(parameter, value):
    with pytest.raises(ds.ConfigurationError, match=parameter) as caught:
        paper(**{parameter: value})
    assert repr(value) in str(caught.value) or parameter == "max_units"


def test_min_units_above_max_units_is_refused():
    with pytest.raises(ds.ConfigurationError, match="max_units"):
        paper(min_units=5, max_units=4)


def test_what_a_rule_leaves_open_is_filled_in_and_nothing_else():
    rule = Rule(max_units=64, p_add=0.0).filled(PAPER)
    assert rule == paper(max_units=64, p_add=0.0)
    assert PAPER.filled(Rule(threshold=1.0)) == PAPER


def test_a_rule_that_is_not_complete_does_not_decide():
    with pytest.raises(ds.ConfigurationError, match=r"leaves threshold, reserve, .*grace_period open"):
        Rule(max_units=64).decide(importances_of("+-"), RuleState.initial(2), generator())


def test_a_grace_period_that_is_a_fraction_of_an_unknown_run_does_not_decide():
    with pytest.raises(ds.ConfigurationError, match=r"grace_period of 0\.1 is a fraction"):
        paper(grace_period=0.1).decide(importances_of("+-"), RuleState.initial(2), generator())


def test_rule_decision_and_state_are_frozen():
    rule = paper()
    decision = rule.decide(importances_of("+-"), RuleState.initial(2), generator())
    for thing in (rule, decision, decision.state):
        for field in dataclasses.fields(thing):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(thing, field.name, None)
