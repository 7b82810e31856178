"""From the terms of a trace to the layouts of slots and attributes."""

from __future__ import annotations

from collections.abc import Mapping

from diffstruct.couple.terms import Leaf, Term, find
from diffstruct.width.layout import Axis, Fixed, Layout, Product, Sum


def layout_of(term: Term, axes: Mapping[Leaf, Axis]) -> Layout:
    """The term with an axis for each leaf that has one in `axes`, and a fixed size for all others."""
    term = find(term)
    if isinstance(term, Sum):
        return Sum(tuple(layout_of(part, axes) for part in term.parts))
    if isinstance(term, Product):
        return Product(tuple(layout_of(factor, axes) for factor in term.factors))
    return axes[term] if term in axes else Fixed(term.size)
