"""Random layouts, and what they mean in plain Python: every position of a dimension gets a name of its own.

A name is nested like the layout, and says which unit of which axis it is of; units that stay keep their
names, so that the same name before and after a change is the same entry.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from diffstruct.width.layout import Axis, Fixed, Layout, Product, Sum

Names = list[tuple[Any, ...]]


@st.composite
def layouts(draw: Any, pool: Sequence[Axis], depth: int = 3) -> Layout:
    """Nested sums and products of some axes of `pool` and numbers, no axis multiplied by itself."""
    kind = draw(st.sampled_from(["axis", "fixed", "sum", "product"] if depth else ["axis", "fixed"]))
    if kind == "axis" and pool:
        return draw(st.sampled_from(pool))
    if kind in ("axis", "fixed"):
        return Fixed(draw(st.integers(0, 3)))
    if kind == "sum":
        return Sum(tuple(draw(st.lists(layouts(pool, depth - 1), max_size=3))))
    count = draw(st.integers(0, 3))
    owner = [draw(st.integers(0, 2)) for _ in pool]  # which factor may have the axis
    shares = [[axis for axis, mine in zip(pool, owner, strict=True) if mine == i] for i in range(count)]
    return Product(tuple(draw(layouts(share, depth - 1)) for share in shares))


def names(layout: Layout, units: Mapping[Axis, Sequence[int]]) -> Names:
    """The name of each position, if the units of each axis are called so."""
    if isinstance(layout, Axis):
        return [("unit", layout, unit) for unit in units[layout]]
    if isinstance(layout, Fixed):
        return [("entry", i) for i in range(layout.size)]
    if isinstance(layout, Sum):
        return [("part", i, name) for i, part in enumerate(layout.parts) for name in names(part, units)]
    return [("all", *each) for each in itertools.product(*(names(f, units) for f in layout.factors))]


def units_in(name: Any) -> Iterator[tuple[Axis, int]]:
    """Every axis and unit that a name mentions."""
    if isinstance(name, tuple):
        if name and name[0] == "unit":
            yield name[1], name[2]
        else:
            for part in name:
                yield from units_in(part)


Moves = dict[Axis, tuple[list[int], int]]
"""For each axis that changes, the units that stay, and how many come."""


@st.composite
def moves(draw: Any, pool: Sequence[Axis]) -> Moves:
    """Changes of some axes, at least one, that leave each a unit."""
    result = {}
    for axis in draw(st.lists(st.sampled_from(pool), min_size=1, unique=True)):
        keep = draw(st.sets(st.integers(0, axis.size - 1)))
        result[axis] = sorted(keep), draw(st.integers(0 if keep else 1, 2))
    return result


def before(pool: Sequence[Axis]) -> dict[Axis, list[int]]:
    """The units of each axis by name."""
    return {axis: list(range(axis.size)) for axis in pool}


def after(pool: Sequence[Axis], changes: Moves) -> dict[Axis, list[int]]:
    """The same after a change: those that come have names that no other unit had."""
    units = before(pool)
    for axis, (keep, add) in changes.items():
        units[axis] = [*keep, *range(axis.size, axis.size + add)]
    return units


def expected_sources(layout: Layout, pool: Sequence[Axis], changes: Moves) -> list[int]:
    """For each new position the old one, or -1."""
    old = {name: position for position, name in enumerate(names(layout, before(pool)))}
    return [old.get(name, -1) for name in names(layout, after(pool, changes))]
