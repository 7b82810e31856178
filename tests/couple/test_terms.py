"""Terms of dimensions: after two are unified, every position belongs to the same units in both."""

from hypothesis import given, settings
from hypothesis import strategies as st

from diffstruct.couple.terms import (
    Leaf,
    UnificationError,
    factor,
    find,
    fix,
    leaves,
    product_of,
    split,
    sum_of,
    unify,
)
from diffstruct.width.layout import Product, Sum


def labels(term):
    """For each position the units that it belongs to, of axes of several units that are not fixed.

    Products drop an axis of one unit, as `view` does.
    """
    term = find(term)
    if isinstance(term, Leaf):
        known = term.size > 1 and not term.fixed
        return [frozenset([(id(term), unit)] if known else []) for unit in range(term.size)]
    if isinstance(term, Sum):
        return [label for part in term.parts for label in labels(part)]
    first, *rest = term.factors
    inner = labels(product_of(rest)) if rest else [frozenset()]
    return [one | other for one in labels(first) for other in inner]


@st.composite
def terms(draw, size, pool, depth=3):
    """A random term of `size` entries; leaves come from `pool` where one fits, so that they recur."""
    fitting = [leaf for leaf in pool if leaf.size == size]
    if fitting and draw(st.booleans()):
        return draw(st.sampled_from(fitting))
    divisors = [outer for outer in range(2, size) if size % outer == 0]
    kind = draw(st.sampled_from(["leaf", "sum", *(["product"] if divisors else [])])) if depth else "leaf"
    if kind == "sum" and size > 1:
        cut = draw(st.integers(1, size - 1))
        return sum_of([draw(terms(cut, pool, depth - 1)), draw(terms(size - cut, pool, depth - 1))])
    if kind == "product":
        outer = draw(st.sampled_from(divisors))
        return product_of([draw(terms(outer, pool, depth - 1)), draw(terms(size // outer, pool, depth - 1))])
    leaf = Leaf(size)
    pool.append(leaf)
    return leaf


SIZES = st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 24, 36])


@settings(max_examples=400)
@given(st.data(), SIZES)
def test_unified_terms_agree_on_every_position(data, size):
    pool = []
    pairs = [
        (data.draw(terms(size, pool)), data.draw(terms(size, pool)))
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    for one, other in pairs:
        unify(one, other, "they differ")
    for one, other in pairs:
        assert find(one).size == find(other).size == size
        assert labels(one) == labels(other)


@settings(max_examples=300)
@given(st.data(), SIZES)
def test_parts_and_factors_are_those_of_the_whole(data, size):
    term = data.draw(terms(size, []))
    for cut in (data.draw(st.integers(0, size)), data.draw(st.integers(0, size))):
        try:
            left, right = split(term, cut)
        except UnificationError:
            continue
        assert (left.size, right.size) == (cut, size - cut)
        assert labels(term) == labels(left) + labels(right)
    outer = data.draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
    try:
        left, right = factor(term, outer)
    except UnificationError:
        return
    assert (left.size, right.size) == (outer, size // outer)
    assert labels(term) == [a | b for a in labels(left) for b in labels(right)]


def test_gates_become_repetitions_of_one_axis():
    rows, hidden = Leaf(24), Leaf(6)
    rest = rows
    for _ in range(4):
        gate, rest = split(rest, 6)
        unify(gate, hidden, "")
    assert [*leaves(rows)] == [find(hidden)] * 4
    assert isinstance(find(rows), Sum)
    assert find(hidden).fixed is None


def test_heads_are_an_axis_of_their_own():
    rows, columns = Leaf(24), Leaf(24)
    heads, width = factor(rows, 4)
    unify(product_of([heads, width]), columns, "")
    assert isinstance(find(columns), Product)
    assert [*leaves(columns)] == [heads, width]


def test_the_first_reason_stays_and_spreads():
    one, other = Leaf(6), Leaf(6)
    fix(one, "first")
    unify(one, other, "")
    fix(other, "second")
    assert {leaf.fixed for leaf in leaves(other)} == {"first"}


def test_what_cannot_agree_is_fixed():
    rows, columns = product_of([Leaf(4), Leaf(6)]), product_of([Leaf(6), Leaf(4)])
    unify(rows, columns, "nested differently")
    assert all(leaf.fixed for leaf in leaves(rows))
    assert all(leaf.fixed for leaf in leaves(columns))


def test_an_axis_inside_itself_is_fixed():
    axis = Leaf(4)
    unify(Sum((axis, Leaf(0))), axis, "inside itself")
    assert axis.fixed == "inside itself"
    assert axis.bound is None


def test_halves_that_are_equal_are_one_axis():
    axis = Leaf(4)
    half, other = split(axis, 2)
    unify(sum_of([half, half]), axis, "")
    assert find(half) is find(other)
    assert [*leaves(axis)] == [find(half)] * 2
    assert find(half).fixed is None


def test_a_repeated_axis_is_a_product():
    axis, count = Leaf(4), Leaf(2)
    product = product_of([count, axis])
    unify(product, sum_of([axis, axis]), "")
    assert labels(product) == labels(axis) * 2
    assert axis.fixed is None
