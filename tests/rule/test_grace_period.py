"""Decisions with a grace period, in which a new unit is not deleted."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule.rules import cases, generator, importances_of, paper, reserve_of

from diffstruct.rule import RuleState


@settings(max_examples=300)
@given(cases(), st.integers(1, 8))
def test_with_a_grace_period_every_decision_is_within_its_bounds(case, grace_period):
    rule, pattern, importances, state, seed = case
    rule = dataclasses.replace(rule, grace_period=grace_period, redraw_after=0)
    decision = rule.decide(importances, state, generator(seed))
    size, deleted = len(pattern), set(range(len(pattern))) - set(decision.keep)
    sub = {unit for unit, letter in enumerate(pattern) if letter != "+"}
    past = {unit for unit in range(size) if state.ages[unit] + 1 > grace_period}
    assert deleted <= sub & past  # no unit is deleted before, however small its importance
    assert rule.min_units <= decision.new_size <= rule.max_units
    assert decision.add <= max(1, reserve_of(rule, size) - len(sub - deleted))


@settings(max_examples=200)
@given(cases(), st.integers(1, 8))
def test_with_a_grace_period_and_probability_one_all_units_past_it_are_deleted(case, grace_period):
    rule, pattern, importances, state, seed = case
    rule = dataclasses.replace(
        rule, grace_period=grace_period, p_add=1.0, p_delete=1.0, p_spontaneous=0.0, redraw_after=0
    )
    decision = rule.decide(importances, state, generator(seed))
    size, below = len(pattern), [letter != "+" for letter in pattern]
    deleted = sum(low and age + 1 > grace_period for low, age in zip(below, state.ages, strict=True))
    stay = max(size - deleted, min(size, rule.min_units))
    assert len(decision.keep) == stay
    reserve = sum(below) - (size - stay)  # new units, and those that min_units keeps
    wanted = max(0, reserve_of(rule, size) - reserve)
    assert decision.add == min(wanted, rule.max_units - stay)


@pytest.mark.parametrize("reserve", [0, 2, 9, 0.9])
def test_with_a_grace_period_the_rate_of_deletion_does_not_depend_on_the_reserve(reserve):
    """3 units are past the grace period, each is deleted at rate 0.2; 5 standard deviations."""
    rule = paper(reserve=reserve, p_add=0, p_delete=0.2, p_spontaneous=0, grace_period=4)
    importances = importances_of("-+=--+-")
    state, chance, n = RuleState(np.array([4, 9, 4, 3, 7, 9, 0]), np.zeros(7, bool)), generator(9), 2000
    deleted = Counter()
    for _ in range(n):
        deleted.update(set(range(7)) - set(rule.decide(importances, state, chance).keep))
    assert set(deleted) == {0, 2, 4}
    assert all(abs(count - 0.2 * n) < 5 * math.sqrt(n * 0.2 * 0.8) for count in deleted.values())


def test_a_unit_can_be_deleted_at_the_first_decision_after_its_grace_period():
    rule = paper(reserve=0, p_delete=1, p_spontaneous=0, grace_period=3)
    state = RuleState.initial(2)
    for _ in range(3):
        decision = rule.decide(importances_of("-+"), state, generator())
        assert decision.keep == (0, 1)
        state = decision.state
    assert rule.decide(importances_of("-+"), state, generator()).keep == (1,)
