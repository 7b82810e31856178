"""The rule: every promise it makes, on random rules, saliences and memories."""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffstruct as ds
from diffstruct import Rule, RuleState

PROBABILITY = st.sampled_from([0.0, 1.0]) | st.floats(0, 1)
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def generator(seed=0):
    return np.random.default_rng(seed)


def saliences_of(pattern, threshold=0.05, dtype=torch.float32):
    """A letter per unit: `+` above the threshold, `=` exactly at it, `-` below."""
    values = {"+": 2 * threshold, "=": threshold, "-": threshold / 2}
    return torch.tensor([values[letter] for letter in pattern], dtype=dtype)


@st.composite
def rules(draw):
    min_units = draw(st.integers(1, 4))
    max_units = draw(st.integers(max(2, min_units), 12))
    return Rule(
        threshold=draw(st.sampled_from([0.05, 0.1, 3.0])),
        reserve=draw(st.integers(0, max_units - 1) | st.floats(0.05, 0.95)),
        p_add=draw(PROBABILITY),
        p_delete=draw(PROBABILITY),
        p_spontaneous=draw(PROBABILITY),
        min_units=min_units,
        max_units=max_units,
        redraw_after=draw(st.none() | st.integers(1, 6)),
    )


@st.composite
def cases(draw):
    """A rule, saliences of an allowed size, a memory, and a seed."""
    rule = draw(rules())
    size = draw(st.integers(rule.min_units, rule.max_units))
    pattern = draw(st.text("+=-", min_size=size, max_size=size))
    saliences = saliences_of(pattern, rule.threshold, draw(st.sampled_from(DTYPES)))
    ages = draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    risen = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    state = RuleState(np.array(ages), np.array(risen))
    return rule, pattern, saliences, state, draw(st.integers(0, 2**32))


def stale_units(rule, pattern, state):
    """Units that have been below the threshold all their life, for longer than the rule waits."""
    if rule.redraw_after is None:
        return set()
    return {
        unit
        for unit, letter in enumerate(pattern)
        if letter != "+" and not state.risen[unit] and state.ages[unit] + 1 > rule.redraw_after
    }


@settings(deadline=None, max_examples=300)
@given(cases())
def test_every_decision_keeps_the_promises(case):
    rule, pattern, saliences, state, seed = case
    decision = rule.decide(saliences, state, generator(seed))
    size, keep = len(pattern), list(decision.keep)
    gone = set(range(size)) - set(keep)
    sub = {unit for unit, letter in enumerate(pattern) if letter != "+"}
    stale = stale_units(rule, pattern, state)
    reserve = rule.reserve_of(size)

    assert decision.size == size
    assert rule.min_units <= decision.new_size <= rule.max_units
    assert decision.new_size == len(keep) + decision.add
    assert keep == sorted(set(keep))  # the order of the survivors
    assert set(keep) <= set(range(size))
    assert gone <= sub
    assert stale <= gone
    assert len(gone - stale) <= max(0, len(sub) - reserve)
    assert 0 <= decision.add <= len(stale) + max(1, reserve - len(sub))
    assert decision.changes == (bool(gone) or decision.add > 0)


@settings(deadline=None, max_examples=200)
@given(cases())
def test_the_memory_follows_the_units(case):
    rule, pattern, saliences, state, seed = case
    decision = rule.decide(saliences, state, generator(seed))
    born = [0] * decision.add
    ages, risen = state.ages.tolist(), state.risen.tolist()
    assert decision.state.ages.tolist() == [ages[unit] + 1 for unit in decision.keep] + born
    expected = [risen[unit] or pattern[unit] == "+" for unit in decision.keep]
    assert decision.state.risen.tolist() == expected + [False] * decision.add
    assert decision.state.ages.dtype == np.int64
    assert decision.state.risen.dtype == np.bool_


@settings(deadline=None, max_examples=200)
@given(cases())
def test_pure_and_reproducible(case):
    rule, _, saliences, state, seed = case
    before = saliences.clone(), state.ages.copy(), state.risen.copy()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one, other = (rule.decide(saliences, state, generator(seed)) for _ in range(2))
    assert (one.keep, one.add) == (other.keep, other.add)
    assert np.array_equal(one.state.ages, other.state.ages)
    assert np.array_equal(one.state.risen, other.state.risen)
    assert torch.equal(saliences, before[0])
    one.state.ages.fill(-1)  # the new memory is not the old one
    assert np.array_equal(state.ages, before[1])
    assert np.array_equal(state.risen, before[2])
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@settings(deadline=None, max_examples=200)
@given(cases())
def test_a_certain_rule_reaches_its_reserve_at_once_from_both_sides(case):
    rule, pattern, saliences, state, seed = case
    rule = dataclasses.replace(rule, p_add=1.0, p_delete=1.0, p_spontaneous=0.0, redraw_after=None)
    decision = rule.decide(saliences, state, generator(seed))
    supra = pattern.count("+")
    wanted = supra + rule.reserve_of(len(pattern))
    # Only the bounds stand between the width and the reserve that it wants.
    assert decision.new_size == min(max(wanted, rule.min_units), rule.max_units)
    assert decision.add == 0 or len(decision.keep) == len(pattern)


@settings(deadline=None, max_examples=60)
@given(rules(), st.integers(0, 2**32))
def test_long_sequences_of_decisions_stay_consistent(rule, seed):
    """Follow each unit by name through 60 decisions, on saliences that wander across the threshold."""
    chance = generator(seed)
    size = rule.min_units
    state = RuleState.newborn(size)
    names, ages, risen = list(range(size)), [0] * size, [False] * size
    for _ in range(60):
        saliences = 2 * rule.threshold * torch.from_numpy(chance.random(size))
        decision = rule.decide(saliences, state, chance)
        above = (saliences > rule.threshold).tolist()
        newcomers = range(max(names) + 1, max(names) + 1 + decision.add)
        born = [0] * decision.add
        names = [names[unit] for unit in decision.keep] + list(newcomers)
        ages = [ages[unit] + 1 for unit in decision.keep] + born
        risen = [risen[unit] or above[unit] for unit in decision.keep] + [False] * decision.add
        size, state = decision.new_size, decision.state
        assert rule.min_units <= size <= rule.max_units
        assert names == sorted(names)
        assert state.ages.tolist() == ages
        assert state.risen.tolist() == risen


@pytest.mark.parametrize("p", [0.02, 0.25, 0.7])
def test_rate_of_deletion(p):
    """10 units in excess, each gone at rate p: the total is Binomial(10 n, p); 5 standard deviations."""
    rule = Rule(reserve=2, p_delete=p, p_spontaneous=0)
    saliences, state, chance, n = saliences_of("-+=-=-+--=-=--"), RuleState.newborn(14), generator(1), 2000
    gone = sum(14 - rule.decide(saliences, state, chance).new_size for _ in range(n))
    assert abs(gone - 10 * n * p) < 5 * math.sqrt(10 * n * p * (1 - p))


def test_deletions_are_independent_of_each_other():
    """2 in excess at rate 1/2: 0, 1, 2 gone at rates 1/4, 1/2, 1/4, within 5 standard deviations."""
    rule = Rule(reserve=0, p_delete=0.5, p_spontaneous=0)
    saliences, state, chance, n = saliences_of("+--"), RuleState.newborn(3), generator(2), 2000
    gone = Counter(3 - rule.decide(saliences, state, chance).new_size for _ in range(n))
    for count, rate in {0: 0.25, 1: 0.5, 2: 0.25}.items():
        assert abs(gone[count] - n * rate) < 5 * math.sqrt(n * rate * (1 - rate))


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9])
def test_rate_of_addition_which_fills_the_whole_shortfall(p):
    """Filled at rate p: Binomial(n, p), within 5 standard deviations."""
    rule = Rule(reserve=4, p_add=p, p_spontaneous=0)
    saliences, state, chance, n = saliences_of("+-++"), RuleState.newborn(4), generator(3), 3000
    added = Counter(rule.decide(saliences, state, chance).add for _ in range(n))
    assert set(added) <= {0, 3}
    assert abs(added[3] - n * p) < 5 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("pattern", ["+-", "+---", "+"])
def test_rate_of_spontaneous_addition_whatever_the_reserve(pattern):
    """One unit at rate 0.2, where the reserve is met, exceeded or not filled; 5 standard deviations."""
    rule = Rule(reserve=1, p_add=0, p_delete=0, p_spontaneous=0.2)
    state, chance, n = RuleState.newborn(len(pattern)), generator(4), 3000
    added = Counter(rule.decide(saliences_of(pattern), state, chance).add for _ in range(n))
    assert set(added) <= {0, 1}
    assert abs(added[1] - n * 0.2) < 5 * math.sqrt(n * 0.2 * 0.8)


def test_filling_comes_before_spontaneous_addition():
    """Shortfall 3: filled at rate 0.3, else one more at rate 0.4; within 5 standard deviations."""
    rule = Rule(reserve=3, p_add=0.3, p_spontaneous=0.4)
    state, chance, n = RuleState.newborn(2), generator(5), 3000
    added = Counter(rule.decide(saliences_of("++"), state, chance).add for _ in range(n))
    for count, rate in {3: 0.3, 1: 0.7 * 0.4, 0: 0.7 * 0.6}.items():
        assert abs(added[count] - n * rate) < 5 * math.sqrt(n * rate * (1 - rate))
    assert sum(added.values()) == added[0] + added[1] + added[3]


def test_which_units_are_spared_is_uniform():
    """5 sub-threshold units, 2 spared: each of the 10 pairs at rate 1/10, within 5 standard deviations."""
    rule = Rule(reserve=2, p_delete=1, p_spontaneous=0)
    saliences, state, chance, n = saliences_of("-+-=+-="), RuleState.newborn(7), generator(6), 3000
    kept = Counter(rule.decide(saliences, state, chance).keep for _ in range(n))
    assert len(kept) == 10
    for keep, count in kept.items():
        assert {1, 4} < set(keep)
        assert abs(count - n / 10) < 5 * math.sqrt(n * 0.1 * 0.9)


def test_which_units_the_minimum_saves_is_uniform():
    """4 units may all go, but 1 must stay: each at rate 1/4, within 5 standard deviations."""
    rule = Rule(reserve=0, p_delete=1, p_spontaneous=0, min_units=1)
    state, chance, n = RuleState.newborn(4), generator(7), 2000
    kept = Counter(rule.decide(saliences_of("----"), state, chance).keep for _ in range(n))
    assert set(kept) == {(0,), (1,), (2,), (3,)}
    assert all(abs(count - n / 4) < 5 * math.sqrt(n * 3 / 16) for count in kept.values())


def test_the_cap_cuts_an_addition_short():
    rule = Rule(reserve=5, p_add=1, p_spontaneous=1, max_units=6)
    assert rule.decide(saliences_of("++++"), RuleState.newborn(4), generator()).add == 2
    assert rule.decide(saliences_of("++++++"), RuleState.newborn(6), generator()).add == 0


def test_at_the_cap_a_newcomer_takes_the_place_of_a_unit_that_goes():
    rule = Rule(reserve=1, p_delete=1, p_spontaneous=1, max_units=4)
    decision = rule.decide(saliences_of("+-+-"), RuleState.newborn(4), generator())
    assert (len(decision.keep), decision.add) == (3, 1)


def test_what_a_decision_draws_does_not_depend_on_the_probabilities():
    after = []
    for p in (0.0, 1.0):
        chance = generator(8)
        rule = Rule(reserve=1, p_add=p, p_delete=p, p_spontaneous=p)
        for pattern in ("+", "+---", "+-"):
            rule.decide(saliences_of(pattern), RuleState.newborn(len(pattern)), chance)
        after.append(chance.bit_generator.state)
    assert after[0] == after[1]


@pytest.mark.parametrize(
    ("reserve", "size", "expected"),
    [(3, 1, 3), (3, 50, 3), (0, 9, 0), (0.25, 1, 1), (0.25, 7, 1), (0.25, 8, 2), (0.25, 80, 20), (0.5, 3, 1)],
)
def test_reserve_as_a_count_or_a_fraction(reserve, size, expected):
    assert Rule(reserve=reserve).reserve_of(size) == expected


def test_a_dead_reserve_unit_is_drawn_anew_after_its_time():
    rule = Rule(reserve=1, p_add=0, p_delete=0, p_spontaneous=0, redraw_after=3)
    state = RuleState.newborn(2)
    for _ in range(3):  # ages 1, 2 and 3
        decision = rule.decide(saliences_of("-+"), state, generator())
        assert not decision.changes
        state = decision.state
    decision = rule.decide(saliences_of("-+"), state, generator())
    assert (decision.keep, decision.add) == ((1,), 1)
    assert decision.state.ages.tolist() == [4, 0]
    assert decision.state.risen.tolist() == [True, False]


@pytest.mark.parametrize("redraw_after", [None, 3])
def test_a_reserve_unit_that_once_rose_is_not_drawn_anew(redraw_after):
    rule = Rule(reserve=1, p_add=0, p_delete=0, p_spontaneous=0, redraw_after=redraw_after)
    state = rule.decide(saliences_of("++"), RuleState.newborn(2), generator()).state
    for _ in range(20):
        decision = rule.decide(saliences_of("=+"), state, generator())
        assert not decision.changes
        state = decision.state


def test_without_redrawing_a_dead_reserve_unit_stays_for_ever():
    rule = Rule(reserve=1, p_add=1, p_delete=1, p_spontaneous=0, redraw_after=None)
    state = RuleState(np.array([10**6]), np.array([False]))
    assert not rule.decide(saliences_of("-"), state, generator()).changes


def test_what_is_deleted_is_not_drawn_anew():
    rule = Rule(reserve=1, p_delete=1, p_spontaneous=0, redraw_after=3)
    state = RuleState(np.full(4, 9), np.zeros(4, dtype=bool))
    decision = rule.decide(saliences_of("+---"), state, generator())
    assert (decision.keep, decision.add) == ((0,), 1)  # two in excess go, the spared one is replaced


def test_a_width_of_dead_units_is_drawn_anew_even_at_its_cap_and_minimum():
    rule = Rule(reserve=1, p_spontaneous=1, p_add=1, p_delete=0, min_units=2, max_units=2, redraw_after=1)
    decision = rule.decide(saliences_of("--"), RuleState(np.array([5, 5]), np.zeros(2) > 0), generator())
    assert (decision.keep, decision.add) == ((), 2)


@settings(deadline=None, max_examples=300)
@given(cases(), st.integers(1, 8))
def test_with_a_trial_every_decision_keeps_the_promises(case, grace_period):
    rule, pattern, saliences, state, seed = case
    rule = dataclasses.replace(rule, grace_period=grace_period, redraw_after=None)
    decision = rule.decide(saliences, state, generator(seed))
    size, gone = len(pattern), set(range(len(pattern))) - set(decision.keep)
    sub = {unit for unit, letter in enumerate(pattern) if letter != "+"}
    tried = {unit for unit in range(size) if state.ages[unit] + 1 > grace_period}
    assert gone <= sub & tried  # nobody goes before the end of the grace_period, however little it earns
    assert rule.min_units <= decision.new_size <= rule.max_units
    assert decision.add <= max(1, rule.reserve_of(size) - len(sub - gone))


@settings(deadline=None, max_examples=200)
@given(cases(), st.integers(1, 8))
def test_with_a_trial_a_certain_rule_deletes_whom_it_may_and_refills_its_reserve(case, grace_period):
    rule, pattern, saliences, state, seed = case
    rule = dataclasses.replace(
        rule, grace_period=grace_period, p_add=1.0, p_delete=1.0, p_spontaneous=0.0, redraw_after=None
    )
    decision = rule.decide(saliences, state, generator(seed))
    size, below = len(pattern), [letter != "+" for letter in pattern]
    condemned = sum(low and age + 1 > grace_period for low, age in zip(below, state.ages, strict=True))
    stay = max(size - condemned, min(size, rule.min_units))
    assert len(decision.keep) == stay
    reserve = sum(below) - (size - stay)  # whoever is left, newborns and those that the minimum saves
    wanted = max(0, rule.reserve_of(size) - reserve)
    assert decision.add == min(wanted, rule.max_units - stay)


@pytest.mark.parametrize("reserve", [0, 2, 9, 0.9])
def test_with_a_trial_the_rate_of_deletion_does_not_depend_on_the_reserve(reserve):
    """3 units whose trial is over, each gone at rate 0.2; 5 standard deviations."""
    rule = Rule(reserve=reserve, p_add=0, p_delete=0.2, p_spontaneous=0, grace_period=4)
    saliences = saliences_of("-+=--+-")
    state, chance, n = RuleState(np.array([4, 9, 4, 3, 7, 9, 0]), np.zeros(7, bool)), generator(9), 2000
    gone = Counter()
    for _ in range(n):
        gone.update(set(range(7)) - set(rule.decide(saliences, state, chance).keep))
    assert set(gone) == {0, 2, 4}
    assert all(abs(count - 0.2 * n) < 5 * math.sqrt(n * 0.2 * 0.8) for count in gone.values())


def test_a_unit_may_go_at_the_first_decision_after_its_trial():
    rule = Rule(reserve=0, p_delete=1, p_spontaneous=0, grace_period=3)
    state = RuleState.newborn(2)
    for _ in range(3):
        decision = rule.decide(saliences_of("-+"), state, generator())
        assert decision.keep == (0, 1)
        state = decision.state
    assert rule.decide(saliences_of("-+"), state, generator()).keep == (1,)


@pytest.mark.parametrize(("size", "expected"), [(1, 4), (13, 4), (17, 5), (40, 12)])
def test_a_reserve_that_is_a_fraction_has_its_least(size, expected):
    assert Rule(reserve=0.3, min_reserve=4).reserve_of(size) == expected
    assert Rule(reserve=3, min_reserve=4).reserve_of(size) == 3  # a count is what it says


@settings(deadline=None, max_examples=100)
@given(rules(), st.floats(0.01, 0.99) | st.integers(0, 100), st.integers(1, 3000), st.integers(1, 20))
def test_a_rule_that_is_asked_less_often_does_as_much(rule, grace_period, updates, every):
    rule = dataclasses.replace(rule, grace_period=grace_period)
    timed = rule.timed(updates, every)
    count = grace_period if isinstance(grace_period, int) else math.ceil(grace_period * updates)
    assert isinstance(timed.grace_period, int)
    assert count <= timed.grace_period * every < count + every  # in updates, rounded up
    for name in ("p_add", "p_delete", "p_spontaneous"):  # that nothing happens in so many updates
        assert 1 - getattr(timed, name) == pytest.approx((1 - getattr(rule, name)) ** every)
    if rule.redraw_after is not None:
        assert abs(timed.redraw_after * every - rule.redraw_after) <= every
    same = ("threshold", "reserve", "min_reserve", "min_units", "max_units")
    assert all(getattr(timed, name) == getattr(rule, name) for name in same)
    assert rule.timed(updates) == dataclasses.replace(rule, grace_period=count)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threshold", [0.05, 0.1, 1 / 3])
def test_a_unit_exactly_at_the_threshold_is_below_it(dtype, threshold):
    rule = Rule(threshold=threshold, reserve=0, p_delete=1, p_spontaneous=0)
    at = torch.tensor([threshold, 2 * threshold], dtype=dtype)
    assert rule.decide(at, RuleState.newborn(2), generator()).keep == (1,)
    just_above = torch.nextafter(at, torch.tensor(10.0, dtype=dtype))
    assert rule.decide(just_above, RuleState.newborn(2), generator()).keep == (0, 1)


def test_saliences_that_carry_gradients_are_welcome():
    saliences = saliences_of("+-").requires_grad_()
    assert Rule().decide(saliences, RuleState.newborn(2), generator()).size == 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "values", [[math.nan], [1, math.nan], [math.inf, 0], [0, -math.inf], [math.inf, -math.inf]]
)
def test_saliences_that_are_not_finite_raise(values, dtype):
    with pytest.raises(ds.DivergenceError, match="learning rate"):
        Rule().decide(torch.tensor(values, dtype=dtype), RuleState.newborn(len(values)), generator())


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16])
def test_saliences_that_are_large_but_finite_are_welcome(dtype):
    largest = torch.full((3,), torch.finfo(dtype).max, dtype=dtype)  # their sum is infinite
    assert Rule(p_spontaneous=0, p_add=0).decide(largest, RuleState.newborn(3), generator()).keep == (0, 1, 2)


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
        *[("max_units", value) for value in (0, -5, None, 9.5)],
        *[("redraw_after", value) for value in (0, -1, 2.5)],
        *[("min_reserve", value) for value in (-1, 1.5)],
        *[("grace_period", value) for value in (-1, 0.0, 1.0, 1.5, -0.5, math.nan)],
    ],
)
def test_parameters_that_cannot_work_raise_and_are_named(parameter, value):
    with pytest.raises(ds.ConfigurationError, match=parameter) as caught:
        Rule(**{parameter: value})
    assert repr(value) in str(caught.value) or parameter == "max_units"


def test_a_minimum_above_the_cap_raises():
    with pytest.raises(ds.ConfigurationError, match="max_units"):
        Rule(min_units=5, max_units=4)


def test_everything_is_frozen():
    rule = Rule()
    decision = rule.decide(saliences_of("+-"), RuleState.newborn(2), generator())
    for thing in (rule, decision, decision.state):
        for field in dataclasses.fields(thing):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(thing, field.name, None)
