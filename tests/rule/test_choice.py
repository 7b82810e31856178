"""Decisions without a grace period: which units are deleted, added and redrawn, and how often."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rule.rules import cases, generator, importances_of, paper, reserve_of, rules

from diffstruct.rule import RuleState


def stale_units(rule, pattern, state):
    """Units that have been below the threshold all the time, for longer than redraw_after."""
    if rule.redraw_after == 0:
        return set()
    return {
        unit
        for unit, letter in enumerate(pattern)
        if letter != "+" and not state.risen[unit] and state.ages[unit] + 1 > rule.redraw_after
    }


@settings(max_examples=300)
@given(cases())
def test_every_decision_is_within_its_bounds(case):
    rule, pattern, importances, state, seed = case
    decision = rule.decide(importances, state, generator(seed))
    size, keep = len(pattern), list(decision.keep)
    deleted = set(range(size)) - set(keep)
    sub = {unit for unit, letter in enumerate(pattern) if letter != "+"}
    stale = stale_units(rule, pattern, state)
    reserve = reserve_of(rule, size)

    assert decision.size == size
    assert rule.min_units <= decision.new_size <= rule.max_units
    assert decision.new_size == len(keep) + decision.add
    assert keep == sorted(set(keep))  # the order of the survivors
    assert set(keep) <= set(range(size))
    assert deleted <= sub
    assert stale <= deleted
    assert len(deleted - stale) <= max(0, len(sub) - reserve)
    assert 0 <= decision.add <= len(stale) + max(1, reserve - len(sub))
    assert decision.changes == (bool(deleted) or decision.add > 0)


@settings(max_examples=200)
@given(cases())
def test_ages_and_risen_belong_to_the_units_that_stay(case):
    rule, pattern, importances, state, seed = case
    decision = rule.decide(importances, state, generator(seed))
    zeros = [0] * decision.add
    ages, risen = state.ages.tolist(), state.risen.tolist()
    assert decision.state.ages.tolist() == [ages[unit] + 1 for unit in decision.keep] + zeros
    expected = [risen[unit] or pattern[unit] == "+" for unit in decision.keep]
    assert decision.state.risen.tolist() == expected + [False] * decision.add
    assert decision.state.ages.dtype == np.int64
    assert decision.state.risen.dtype == np.bool_


@settings(max_examples=200)
@given(cases())
def test_with_probability_one_the_reserve_is_reached_at_once(case):
    rule, pattern, importances, state, seed = case
    rule = dataclasses.replace(rule, p_add=1.0, p_delete=1.0, p_spontaneous=0.0, redraw_after=0)
    decision = rule.decide(importances, state, generator(seed))
    supra = pattern.count("+")
    wanted = supra + reserve_of(rule, len(pattern))
    # Only the bounds stand between the width and the reserve that it wants.
    assert decision.new_size == min(max(wanted, rule.min_units), rule.max_units)
    assert decision.add == 0 or len(decision.keep) == len(pattern)


@settings(max_examples=60)
@given(rules(), st.integers(0, 2**32))
def test_sixty_decisions_in_a_row_keep_track_of_every_unit(rule, seed):
    """Follow each unit by name through 60 decisions, on importances that wander across the threshold."""
    chance = generator(seed)
    size = rule.min_units
    state = RuleState.initial(size)
    names, ages, risen = list(range(size)), [0] * size, [False] * size
    for _ in range(60):
        importances = 2 * rule.threshold * torch.from_numpy(chance.random(size))
        decision = rule.decide(importances, state, chance)
        above = (importances > rule.threshold).tolist()
        new = range(max(names) + 1, max(names) + 1 + decision.add)
        zeros = [0] * decision.add
        names = [names[unit] for unit in decision.keep] + list(new)
        ages = [ages[unit] + 1 for unit in decision.keep] + zeros
        risen = [risen[unit] or above[unit] for unit in decision.keep] + [False] * decision.add
        size, state = decision.new_size, decision.state
        assert rule.min_units <= size <= rule.max_units
        assert names == sorted(names)
        assert state.ages.tolist() == ages
        assert state.risen.tolist() == risen


@pytest.mark.parametrize("p", [0.02, 0.25, 0.7])
def test_rate_of_deletion(p):
    """10 units in excess, each deleted at rate p: the total is Binomial(10 n, p); 5 standard deviations."""
    rule = paper(reserve=2, p_delete=p, p_spontaneous=0)
    importances, state, chance, n = (
        importances_of("-+=-=-+--=-=--"),
        RuleState.initial(14),
        generator(1),
        2000,
    )
    deleted = sum(14 - rule.decide(importances, state, chance).new_size for _ in range(n))
    assert abs(deleted - 10 * n * p) < 5 * math.sqrt(10 * n * p * (1 - p))


def test_deletions_are_independent_of_each_other():
    """2 in excess at rate 1/2: 0, 1, 2 deleted at rates 1/4, 1/2, 1/4, within 5 standard deviations."""
    rule = paper(reserve=0, p_delete=0.5, p_spontaneous=0)
    importances, state, chance, n = importances_of("+--"), RuleState.initial(3), generator(2), 2000
    deleted = Counter(3 - rule.decide(importances, state, chance).new_size for _ in range(n))
    for count, rate in {0: 0.25, 1: 0.5, 2: 0.25}.items():
        assert abs(deleted[count] - n * rate) < 5 * math.sqrt(n * rate * (1 - rate))


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9])
def test_rate_of_filling_the_reserve(p):
    """Filled at rate p: Binomial(n, p), within 5 standard deviations."""
    rule = paper(reserve=4, p_add=p, p_spontaneous=0)
    importances, state, chance, n = importances_of("+-++"), RuleState.initial(4), generator(3), 3000
    added = Counter(rule.decide(importances, state, chance).add for _ in range(n))
    assert set(added) <= {0, 3}
    assert abs(added[3] - n * p) < 5 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("pattern", ["+-", "+---", "+"])
def test_rate_of_spontaneous_addition(pattern):
    """One unit at rate 0.2, where the reserve is met, exceeded or not filled; 5 standard deviations."""
    rule = paper(reserve=1, p_add=0, p_delete=0, p_spontaneous=0.2)
    state, chance, n = RuleState.initial(len(pattern)), generator(4), 3000
    added = Counter(rule.decide(importances_of(pattern), state, chance).add for _ in range(n))
    assert set(added) <= {0, 1}
    assert abs(added[1] - n * 0.2) < 5 * math.sqrt(n * 0.2 * 0.8)


def test_filling_the_reserve_comes_before_spontaneous_addition():
    """Shortfall 3: filled at rate 0.3, else one more at rate 0.4; within 5 standard deviations."""
    rule = paper(reserve=3, p_add=0.3, p_spontaneous=0.4)
    state, chance, n = RuleState.initial(2), generator(5), 3000
    added = Counter(rule.decide(importances_of("++"), state, chance).add for _ in range(n))
    for count, rate in {3: 0.3, 1: 0.7 * 0.4, 0: 0.7 * 0.6}.items():
        assert abs(added[count] - n * rate) < 5 * math.sqrt(n * rate * (1 - rate))
    assert sum(added.values()) == added[0] + added[1] + added[3]


def test_units_in_the_reserve_are_chosen_uniformly():
    """5 sub-threshold units, 2 spared: each of the 10 pairs at rate 1/10, within 5 standard deviations."""
    rule = paper(reserve=2, p_delete=1, p_spontaneous=0)
    importances, state, chance, n = importances_of("-+-=+-="), RuleState.initial(7), generator(6), 3000
    kept = Counter(rule.decide(importances, state, chance).keep for _ in range(n))
    assert len(kept) == 10
    for keep, count in kept.items():
        assert {1, 4} < set(keep)
        assert abs(count - n / 10) < 5 * math.sqrt(n * 0.1 * 0.9)


def test_units_that_the_minimum_keeps_are_chosen_uniformly():
    """4 units may be deleted, but 1 must stay: each at rate 1/4, within 5 standard deviations."""
    rule = paper(reserve=0, p_delete=1, p_spontaneous=0, min_units=1)
    state, chance, n = RuleState.initial(4), generator(7), 2000
    kept = Counter(rule.decide(importances_of("----"), state, chance).keep for _ in range(n))
    assert set(kept) == {(0,), (1,), (2,), (3,)}
    assert all(abs(count - n / 4) < 5 * math.sqrt(n * 3 / 16) for count in kept.values())


def test_no_unit_is_added_beyond_max_units():
    rule = paper(reserve=5, p_add=1, p_spontaneous=1, max_units=6)
    assert rule.decide(importances_of("++++"), RuleState.initial(4), generator()).add == 2
    assert rule.decide(importances_of("++++++"), RuleState.initial(6), generator()).add == 0


def test_at_max_units_a_new_unit_takes_the_place_of_a_deleted_one():
    rule = paper(reserve=1, p_delete=1, p_spontaneous=1, max_units=4)
    decision = rule.decide(importances_of("+-+-"), RuleState.initial(4), generator())
    assert (len(decision.keep), decision.add) == (3, 1)


def test_the_number_of_draws_does_not_depend_on_the_probabilities():
    after = []
    for p in (0.0, 1.0):
        chance = generator(8)
        rule = paper(reserve=1, p_add=p, p_delete=p, p_spontaneous=p)
        for pattern in ("+", "+---", "+-"):
            rule.decide(importances_of(pattern), RuleState.initial(len(pattern)), chance)
        after.append(chance.bit_generator.state)
    assert after[0] == after[1]


def test_a_reserve_unit_that_never_rose_is_redrawn_after_its_time():
    rule = paper(reserve=1, p_add=0, p_delete=0, p_spontaneous=0, redraw_after=3)
    state = RuleState.initial(2)
    for _ in range(3):  # ages 1, 2 and 3
        decision = rule.decide(importances_of("-+"), state, generator())
        assert not decision.changes
        state = decision.state
    decision = rule.decide(importances_of("-+"), state, generator())
    assert (decision.keep, decision.add) == ((1,), 1)
    assert decision.state.ages.tolist() == [4, 0]
    assert decision.state.risen.tolist() == [True, False]


@pytest.mark.parametrize("redraw_after", [0, 3])
def test_a_reserve_unit_that_once_rose_is_not_redrawn(redraw_after):
    rule = paper(reserve=1, p_add=0, p_delete=0, p_spontaneous=0, redraw_after=redraw_after)
    state = rule.decide(importances_of("++"), RuleState.initial(2), generator()).state
    for _ in range(20):
        decision = rule.decide(importances_of("=+"), state, generator())
        assert not decision.changes
        state = decision.state


def test_without_redrawing_a_reserve_unit_that_never_rose_stays():
    rule = paper(reserve=1, p_add=1, p_delete=1, p_spontaneous=0, redraw_after=0)
    state = RuleState(np.array([10**6]), np.array([False]))
    assert not rule.decide(importances_of("-"), state, generator()).changes


def test_deleted_units_are_not_redrawn():
    rule = paper(reserve=1, p_delete=1, p_spontaneous=0, redraw_after=3)
    state = RuleState(np.full(4, 9), np.zeros(4, dtype=bool))
    decision = rule.decide(importances_of("+---"), state, generator())
    assert (decision.keep, decision.add) == ((0,), 1)  # two in excess are deleted, the other is redrawn


def test_all_units_are_redrawn_even_at_min_and_max_units():
    rule = paper(reserve=1, p_spontaneous=1, p_add=1, p_delete=0, min_units=2, max_units=2, redraw_after=1)
    decision = rule.decide(importances_of("--"), RuleState(np.array([5, 5]), np.zeros(2) > 0), generator())
    assert (decision.keep, decision.add) == ((), 2)
