"""Settling: nobody goes while the network still wins much."""

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from diffstruct.criteria.settling import Settling


def pressures(curve, total=100, tolerance=0.1, every=1):
    settling = Settling(total)
    return {step: settling.pressure(step, curve(step), tolerance) for step in range(every, total + 1, every)}


@settings(max_examples=60)
@given(
    values=st.lists(st.floats(-2, 5), min_size=1, max_size=60),
    every=st.integers(1, 5),
    tolerance=st.floats(0.01, 1),
)
def test_it_compares_with_a_tenth_of_the_run_before(values, every, tolerance):
    total = every * len(values)
    settling = Settling(total)
    for i, won in enumerate(values):
        step = every * (i + 1)
        found = settling.pressure(step, won, tolerance)
        old = [j for j in range(i + 1) if every * (j + 1) <= step - 0.1 * total]
        if not old or won <= 0:
            assert found == 0
        else:
            gained = (won - values[old[-1]]) / won
            assert found == pytest.approx(min(1, max(0, 1 - gained / tolerance)))


def test_there_is_no_pressure_in_the_first_tenth_and_none_before_anything_was_won():
    found = pressures(lambda step: 1.0)
    assert all(found[step] == 0 for step in range(1, 11))
    assert all(found[step] == 1 for step in range(11, 101))
    assert set(pressures(lambda step: 0.0).values()) == {0.0}
    assert set(pressures(lambda step: -1.0).values()) == {0.0}


def test_pressure_rises_as_the_gain_falls():
    found = pressures(lambda step: 1 - 2 ** (-step / 10), total=200)
    steps = [*found][25:]
    assert all(found[a] <= found[b] for a, b in itertools.pairwise(steps))
    assert found[25] == 0
    assert found[200] > 0.95


def test_half_the_tolerated_gain_is_half_the_pressure():
    found = pressures(lambda step: 0.95 if step <= 50 else 1.0)
    assert found[50] == 1
    assert found[55] == found[60] == pytest.approx(0.5)
    assert found[61] == 1


def test_where_what_was_won_falls_the_pressure_is_full():
    assert pressures(lambda step: 100.0 - step / 2)[90] == 1


@settings(max_examples=60)
@given(
    values=st.lists(st.floats(0.01, 5), min_size=2, max_size=40),
    power=st.integers(-20, 20),
    tolerance=st.floats(0.01, 1),
)
def test_the_unit_of_what_was_won_does_not_matter(values, power, tolerance):
    assume(len(values) > 1)
    one, two = Settling(len(values)), Settling(len(values))
    for step, won in enumerate(values, 1):
        expected = one.pressure(step, won, tolerance)
        assert two.pressure(step, won * 2.0**power, tolerance) == expected


def test_decisions_may_be_far_apart():
    found = pressures(lambda step: 1.0, total=100, every=30)
    assert [*found.values()] == [0, 1, 1]
