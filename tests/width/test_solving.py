"""Sizes from lengths: those that lengths came from are found again, and what contradicts is refused."""

import pytest
from helpers.layouts import layouts
from hypothesis import given
from hypothesis import strategies as st

from diffstruct.width.canonical import canonical
from diffstruct.width.layout import Axis, Fixed, Layout, Product, Sum, axes, length
from diffstruct.width.solving import NoSizesError, solve

POOL = [Axis(2), Axis(3), Axis(5)]


@given(
    st.lists(layouts(POOL), max_size=5),
    st.lists(st.integers(1, 7), min_size=3, max_size=3),
    st.sets(st.sampled_from(POOL)),
)
def test_what_is_found_is_what_the_lengths_came_from(some, numbers, told):
    sizes = dict(zip(POOL, numbers, strict=True))
    known = {axis: sizes[axis] for axis in told}
    some = [canonical(layout) for layout in some]
    found = solve([("", layout, length(layout, sizes)) for layout in some], known)
    assert found == {axis: sizes[axis] for axis in found}
    for layout in some:  # a length with one unknown size is solved
        assert len([axis for axis in axes(layout) if axis not in found]) != 1


def test_one_length_makes_others_solvable():
    keys, groups = Axis(3), Axis(2)
    queries: Layout = Product((keys, groups, Fixed(4)))
    lengths = [("queries", queries, 40), ("keys", Product((keys, Fixed(4))), 8)]
    assert solve(lengths, {}) == {keys: 2, groups: 5}
    assert solve([("both", Sum((keys, groups)), 9)], {keys: 4}) == {keys: 4, groups: 5}


def test_a_product_of_two_unknown_sizes_is_left_open():
    heads, features = Axis(3), Axis(4)
    assert solve([("", Product((heads, features)), 24)], {}) == {}
    assert solve([("", Product((heads, features)), 24)], {features: 4}) == {heads: 6, features: 4}


@pytest.mark.parametrize("target", [7, 3, 0])
def test_a_length_of_no_number_of_units_is_refused(target):
    with pytest.raises(NoSizesError, match=rf"w\[0\] has {target} entries, which no number of units gives"):
        solve([("w[0]", Sum((Product((Axis(2), Fixed(2))), Fixed(4))), target)], {})


def test_contradicting_lengths_are_refused():
    axis = Axis(2)
    with pytest.raises(NoSizesError, match=r"b\[0\] would have 5 entries \(2\), not 6"):
        solve([("w[0]", axis, 5), ("b[0]", axis, 6)], {})
