"""Layouts against plain Python, which gives every position a name and looks where it went."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.layouts import after, before, expected_sources, layouts, moves, names, units_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import diffstruct as ds
from diffstruct.width.canonical import canonical
from diffstruct.width.layout import (
    Axis,
    Fixed,
    Layout,
    Product,
    Sum,
    axes,
    copies,
    formula,
    length,
    nested_twice,
    only,
    owners,
    sources,
    unit_sums,
)

many = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
pools = st.lists(st.builds(Axis, st.integers(1, 4)), min_size=1, max_size=3)


@st.composite
def cases(draw: Any):
    pool = draw(pools)
    return pool, draw(layouts(pool)), draw(moves(pool))


def new_sizes(changes):
    return {axis: len(keep) + add for axis, (keep, add) in changes.items()}


def as_tensors(changes):
    return {axis: torch.tensor([*keep, *[-1] * add]) for axis, (keep, add) in changes.items()}


@many
@given(cases())
def test_length_counts_the_positions_now_and_at_other_sizes(case):
    pool, layout, changes = case
    assert length(layout) == len(names(layout, before(pool)))
    assert length(layout, new_sizes(changes)) == len(names(layout, after(pool, changes)))


@many
@given(cases())
def test_axes_are_each_told_once_in_order(case):
    _, layout, _ = case

    def occurrences(part: Layout) -> list[Axis]:
        if isinstance(part, Axis):
            return [part]
        children = part.parts if isinstance(part, Sum) else part.factors if isinstance(part, Product) else ()
        return [axis for child in children for axis in occurrences(child)]

    assert [*axes(layout)] == [*dict.fromkeys(occurrences(layout))]


@many
@given(cases())
def test_sources_follow_every_name(case):
    pool, layout, changes = case
    found = sources(layout, as_tensors(changes))
    assert found.dtype == torch.int64
    assert found.tolist() == expected_sources(layout, pool, changes)


@many
@given(cases())
def test_owners_are_the_units_in_the_names(case):
    pool, layout, changes = case
    for sizes, units in (({}, before(pool)), (new_sizes(changes), after(pool, changes))):
        for axis in pool:
            expected = [dict(units_in(name)).get(axis) for name in names(layout, units)]
            found = owners(layout, axis, sizes)
            assert found.dtype == torch.int64
            assert found.tolist() == [-1 if unit is None else units[axis].index(unit) for unit in expected]


@many
@given(cases())
def test_sums_and_copies_agree_with_the_owners(case):
    _, layout, changes = case
    for sizes in ({}, new_sizes(changes)):
        values = torch.randint(0, 100, [length(layout, sizes)]).double()
        for axis in axes(canonical(layout)):
            owner, size = owners(layout, axis, sizes), length(axis, sizes)
            counts = torch.bincount(owner[owner >= 0], minlength=size)
            assert counts.tolist() == [copies(layout, axis, sizes)] * size
            expected = [values[owner == unit].sum().item() for unit in range(size)]
            assert unit_sums(values, canonical(layout), axis, sizes).tolist() == expected


@many
@given(cases())
def test_what_belongs_to_an_axis_alone_is_in_the_same_order(case):
    _, layout, changes = case
    sizes = new_sizes(changes)
    for axis in axes(layout):
        owner = owners(layout, axis, sizes)
        assert torch.equal(owners(only(layout, axis), axis, sizes), owner[owner >= 0])


@many
@given(cases())
def test_the_canonical_form_means_the_same_and_is_one(case):
    _, layout, changes = case
    simple = canonical(layout)
    assert canonical(simple) == simple
    assert torch.equal(sources(simple, as_tensors(changes)), sources(layout, as_tensors(changes)))
    for axis in axes(layout):
        for sizes in ({}, new_sizes(changes)):
            assert torch.equal(owners(simple, axis, sizes), owners(layout, axis, sizes))


A, B = Axis(3), Axis(2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Product((Fixed(1), A)), A),
        (Sum((A,)), A),
        (Sum((A, A)), Product((Fixed(2), A))),
        (Sum((A, Fixed(0), Product((Fixed(2), A)))), Product((Fixed(3), A))),
        (Sum((Fixed(2), Fixed(3))), Fixed(5)),
        (Sum(()), Fixed(0)),
        (Product(()), Fixed(1)),
        (Product((Fixed(0), A)), Fixed(0)),
        (Product((Fixed(7), Fixed(7), Product((A, Fixed(2))))), Product((Fixed(49), A, Fixed(2)))),
        (Product((Sum((A, B)), Fixed(7), Fixed(7))), Sum((Product((A, Fixed(49))), Product((B, Fixed(49)))))),
    ],
)
def test_layouts_that_say_the_same_compare_equal(one, other):
    assert canonical(one) == canonical(other)


def test_axes_of_one_size_are_not_the_same():
    one, other = Product((Fixed(2), Axis(3))), Product((Fixed(2), Axis(3)))
    assert canonical(one) != canonical(other)
    assert repr(one) == "Product(factors=(Fixed(size=2), Axis(size=3)))"


@pytest.mark.parametrize(
    ("layout", "twice"),
    [
        (Sum((A, A)), None),
        (Product((A, B)), None),
        (Sum((Product((A, Fixed(2))), Product((B, A)))), None),
        (Product((A, Fixed(2), A)), A),
        (Sum((Fixed(1), Product((B, Sum((Fixed(3), Product((A, B)))))))), B),
    ],
)
def test_an_axis_multiplied_by_itself_is_found_and_refused(layout, twice):
    assert nested_twice(layout) is twice
    if twice is not None:
        with pytest.raises(ds.StructureError, match=r"Linear\.weight\[dim 1.*every unit"):
            ds.Slot(nn.Linear(2, 2), "weight", 1, ds.Role.OUTGOING, layout)


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (A, ""),
        (Product((Fixed(1), A)), ""),
        (Product((Fixed(4), A)), " x4"),
        (Product((A, Fixed(49))), ": 49 each"),
        (Product((Fixed(3), A, Fixed(16))), " x3: 16 each"),
        (Sum((A, Fixed(5))), ": 3 + 5"),
        (Product((Sum((A, B)), Fixed(49))), ": 3 x 49 + 2 x 49"),
        (Product((Fixed(2), Sum((A, B)))), ": 2 x (3 + 2)"),
    ],
)
def test_a_slot_prints_how_its_units_lie(layout, text):
    assert str(ds.Slot(nn.Linear(2, 2), "weight", 1, ds.Role.OUTGOING, layout)) == (
        f"Linear.weight[dim 1{text}]"
    )


def test_the_formula_follows_the_sizes():
    axis = Axis(2)
    layout = Sum((axis, Product((Fixed(3), axis))))
    axis.size = 5
    assert formula(layout) == "5 + 3 x 5"
