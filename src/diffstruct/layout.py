"""How widths lie in a dimension of a tensor: behind one another, nested in one another, any depth.

The rows of an LSTM's weights are `Product((Fixed(4), hidden))`, four gates of hidden units each; what a
linear layer reads of two flattened pictures is `Sum((Product((a, Fixed(49))), Product((b, Fixed(49)))))`.
Pure but for `Axis.size`, which surgery alone changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(eq=False)
class Axis:
    """A learned size, compared by identity."""

    size: int
    """Units now."""


@dataclass(frozen=True)
class Fixed:
    """So many entries, whatever is learned."""

    size: int


@dataclass(frozen=True)
class Sum:
    """Parts behind one another."""

    parts: tuple[Layout, ...]


@dataclass(frozen=True)
class Product:
    """Factors nested in one another; the entries of the last one are neighbours."""

    factors: tuple[Layout, ...]


Layout = Axis | Fixed | Sum | Product

_AS_IT_IS: Mapping[Axis, int] = {}


def length(layout: Layout, sizes: Mapping[Axis, int] = _AS_IT_IS) -> int:
    """Entries of a dimension; `sizes` says what some axes are to be taken for."""
    if isinstance(layout, Axis):
        return sizes.get(layout, layout.size)
    if isinstance(layout, Fixed):
        return layout.size
    if isinstance(layout, Sum):
        return sum(length(part, sizes) for part in layout.parts)
    return prod(length(factor, sizes) for factor in layout.factors)


def axes(layout: Layout) -> Iterator[Axis]:
    """The axes of a layout, each as often as it occurs."""
    if isinstance(layout, Axis):
        yield layout
    elif not isinstance(layout, Fixed):
        for inner in layout.parts if isinstance(layout, Sum) else layout.factors:
            yield from axes(inner)


def nesting(layout: Layout, axis: Axis) -> int:
    """How often `axis` is nested in itself: 1 where it occurs as it should."""
    if isinstance(layout, Product):
        return sum(nesting(factor, axis) for factor in layout.factors)
    if isinstance(layout, Sum):
        return max(nesting(part, axis) for part in layout.parts)
    return int(layout is axis)


def sources(layout: Layout, moves: Mapping[Axis, Tensor]) -> Tensor:
    """For each position of the new dimension its old position, -1 for a new one: int64 `[new length]`.

    Args:
        layout: of the dimension.
        moves: for each axis that changes, int64 `[new units]`, the old unit, or -1 for a new one.
    """
    if isinstance(layout, (Axis, Fixed)):
        same = torch.arange(layout.size)
        return moves.get(layout, same) if isinstance(layout, Axis) else same
    if isinstance(layout, Sum):
        found, start = [], 0
        for part in layout.parts:
            inner = sources(part, moves)
            found.append(torch.where(inner >= 0, inner + start, -1))
            start += length(part)
        return torch.cat(found)
    total = torch.zeros(1, dtype=torch.int64)
    for factor in layout.factors:
        inner = sources(factor, moves)
        both = total[:, None] * length(factor) + inner
        total = torch.where((total[:, None] >= 0) & (inner >= 0), both, -1).flatten()
    return total


def owners(layout: Layout, axis: Axis, sizes: Mapping[Axis, int] = _AS_IT_IS) -> Tensor:
    """For each position the unit of `axis` that it belongs to, -1 for none: int64 `[length]`."""
    if layout is axis:
        return torch.arange(length(axis, sizes))
    if isinstance(layout, Sum):
        return torch.cat([owners(part, axis, sizes) for part in layout.parts])
    if isinstance(layout, Product):
        total = torch.full([1], -1, dtype=torch.int64)
        for factor in layout.factors:  # the axis is in one of them at most
            total = torch.maximum(total[:, None], owners(factor, axis, sizes)).flatten()
        return total
    return torch.full([length(layout, sizes)], -1, dtype=torch.int64)


def around(layout: Layout, axis: Axis) -> tuple[int, int] | None:
    """How often `axis` repeats outside, and how many neighbours a unit has inside.

    None if the layout is more than one product of fixed sizes and `axis`.
    """
    if layout is axis:
        return 1, 1
    if not isinstance(layout, Product) or sum(factor is axis for factor in layout.factors) != 1:
        return None
    outer, inner, passed = 1, 1, False
    for factor in layout.factors:
        if factor is axis:
            passed = True
        elif not isinstance(factor, Fixed):
            return None
        elif passed:
            inner *= factor.size
        else:
            outer *= factor.size
    return outer, inner
