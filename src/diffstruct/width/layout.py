"""Layouts: how the units of widths lie along one dimension of a tensor. Pure.

A layout is a width's axis, a fixed number of entries, a sum of layouts (one behind the other, as
concatenation makes) or a product of layouts (every combination, as flattening makes):

    the four gates of an LSTM                Product((Fixed(4), units))
    7 x 7 pixels of each channel, flat       Product((channels, Fixed(49)))
    two widths, concatenated                 Sum((first, second))
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor


class Sized(Protocol):
    """What sums and products are made of: layouts here, the terms of a trace elsewhere."""

    @property
    def size(self) -> int:
        """Number of entries."""
        ...


Part = TypeVar("Part", bound=Sized, covariant=True)


@dataclass(eq=False)
class Axis:
    """The units of one width. Two axes are the same only if they are one object.

    Args:
        size: units now; only surgery changes it.
    """

    size: int


@dataclass(frozen=True)
class Fixed:
    """Entries whose number no change of structure touches."""

    size: int


@dataclass(frozen=True)
class Sum(Generic[Part]):
    """Parts one behind the other.

    Example:
        The columns of a linear layer that reads 4 and 6 concatenated units:

        >>> import diffstruct as ds
        >>> ds.Sum((ds.Axis(4), ds.Axis(6)))
        Sum(parts=(Axis(size=4), Axis(size=6)))
    """

    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Number of entries."""
        return sum(part.size for part in self.parts)


@dataclass(frozen=True)
class Product(Generic[Part]):
    """Every combination of entries of the factors; those of the last factor are adjacent in memory.

    Example:
        The columns of a linear layer that reads 16 channels of 7 x 7 flattened pixels:

        >>> import diffstruct as ds
        >>> ds.Product((ds.Axis(16), ds.Fixed(49)))
        Product(factors=(Axis(size=16), Fixed(size=49)))
    """

    factors: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(factor.size for factor in self.factors)


@dataclass(frozen=True)
class Unowned(Generic[Part]):
    """Entries that lie like `inner` and change with it, but are not what a slot says of its units.

    Example:
        Queries, keys and values of one layer, of which only the queries are meant:

        >>> import diffstruct as ds
        >>> from diffstruct.width.layout import Unowned
        >>> units = ds.Axis(4)
        >>> ds.Sum((units, Unowned(units), Unowned(units))).size
        12
    """

    inner: Part

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.inner.size


if TYPE_CHECKING:
    Layout: TypeAlias = Axis | Fixed | Sum["Layout"] | Product["Layout"] | Unowned["Layout"]
else:  # `singledispatch` evaluates annotations where the name of a forward reference is not known
    Layout = Axis | Fixed | Sum | Product | Unowned
Sizes: TypeAlias = Mapping[Axis, int]
NOW: Sizes = MappingProxyType({})
"""Every axis has the size that it has."""


def length(layout: Layout, sizes: Sizes = NOW) -> int:
    """Entries of a dimension that is laid out like this; `sizes` stand for those that the axes have."""
    match layout:
        case Axis():
            return sizes.get(layout, layout.size)
        case Fixed():
            return layout.size
        case Sum():
            return sum(length(part, sizes) for part in layout.parts)
        case Product():
            return math.prod(length(factor, sizes) for factor in layout.factors)
        case Unowned():
            return length(layout.inner, sizes)


def axes(layout: Layout) -> Iterator[Axis]:
    """The axes of a layout that own entries, in order, each once."""
    return iter(dict.fromkeys(_occurrences(layout)))


def sources(layout: Layout, moves: Mapping[Axis, Tensor]) -> Tensor:
    """Where the entries of a dimension come from when the units of some axes change.

    Args:
        layout: of the dimension; the sizes of its axes are those before the change.
        moves: for each axis that changes, by new unit, the old unit that it was, or -1: int64
            `[new units]`.

    Returns:
        For each position of the new dimension its old position, or -1 for a new entry: int64.
    """
    match layout:
        case Axis():
            return moves[layout] if layout in moves else torch.arange(layout.size)
        case Fixed():
            return torch.arange(layout.size)
        case Sum():
            parts, before = [torch.zeros(0, dtype=torch.int64)], 0
            for part in layout.parts:
                source = sources(part, moves)
                parts.append(torch.where(source < 0, source, source + before))
                before += length(part)
            return torch.cat(parts)
        case Product():
            result = torch.zeros(1, dtype=torch.int64)
            for factor in layout.factors:
                outer, inner = result[:, None], sources(factor, moves)
                new = (outer < 0) | (inner < 0)
                result = torch.where(new, -1, outer * length(factor) + inner).flatten()
            return result
        case Unowned():
            return sources(layout.inner, moves)


def owners(layout: Layout, axis: Axis, sizes: Sizes = NOW) -> Tensor:
    """For each position the unit of `axis` that it belongs to, or -1: int64 `[length]`."""
    match layout:
        case Sum():
            none = torch.zeros(0, dtype=torch.int64)
            return torch.cat([none, *(owners(part, axis, sizes) for part in layout.parts)])
        case Product():
            result = torch.full([1], -1)
            for factor in layout.factors:
                # The axis is in one factor at most: all others have -1 everywhere.
                result = torch.maximum(result[:, None], owners(factor, axis, sizes)).flatten()
            return result
        case _ if layout is axis:
            return torch.arange(length(axis, sizes))
        case _:
            return torch.full([length(layout, sizes)], -1)


def spread(values: Tensor, layout: Layout, axis: Axis, sizes: Sizes = NOW, fill: float = 1.0) -> Tensor:
    """`values` `[units]` of `axis`, by position: `[length]`; `fill` where a position belongs to no unit."""
    # Positions of no unit have -1 there, and so take the last entry.
    units = owners(layout, axis, sizes).to(values.device)
    return torch.cat([values, values.new_full((1,), fill)])[units]


def along(vector: Tensor, dim: int, ndim: int) -> Tensor:
    """A view of `vector` that broadcasts along dimension `dim` of a tensor of `ndim` dimensions."""
    shape = [1] * ndim
    shape[dim] = -1
    return vector.view(shape)


def only(layout: Layout, axis: Axis) -> Layout:
    """How the entries that belong to units of `axis` lie if all others are left out."""
    match layout:
        case Sum():
            return Sum(tuple(only(part, axis) for part in layout.parts if _has(part, axis)))
        case Product():
            return Product(tuple(only(f, axis) if _has(f, axis) else f for f in layout.factors))
        case _:
            return layout


def copies(layout: Layout, axis: Axis, sizes: Sizes = NOW) -> int:
    """How many entries each unit of `axis` has along the dimension."""
    return length(only(layout, axis), {**sizes, axis: 1})


def unit_sums(values: Tensor, layout: Layout, axis: Axis, sizes: Sizes = NOW) -> Tensor:
    """Sum `values` `[length]` over all entries of each unit of `axis`, which has some: `[units]`.

    Made of views and sums: it asks for no index, and rounds the same way on every run and device.
    """
    match layout:
        case Sum():
            lengths = [length(part, sizes) for part in layout.parts]
            pairs = zip(layout.parts, torch.split(values, lengths), strict=True)
            sums = [unit_sums(own, part, axis, sizes) for part, own in pairs if _has(part, axis)]
            return sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)
        case Product():
            which = next(i for i, factor in enumerate(layout.factors) if _has(factor, axis))
            inner = math.prod(length(factor, sizes) for factor in layout.factors[which + 1 :])
            outer = math.prod(length(factor, sizes) for factor in layout.factors[:which])
            values = values if inner == 1 else values.view(-1, inner).sum(1)
            values = values if outer == 1 else values.view(outer, -1).sum(0)
            return unit_sums(values, layout.factors[which], axis, sizes)
        case _:
            return values


def nested_twice(layout: Layout) -> Axis | None:
    """An axis that is a factor of itself: its units would lie along a diagonal, which nothing can cut."""
    if isinstance(layout, Product):
        seen: set[Axis] = set()
        for factor in layout.factors:
            here = {*axes(factor)}
            if seen & here:
                return (seen & here).pop()
            seen |= here
    inside = (nested_twice(child) for child in children(layout))
    return next((axis for axis in inside if axis is not None), None)


def formula(layout: Layout) -> str:
    """The layout in sizes as they are now, such as `3 x 49 + 2 x 49`."""
    match layout:
        case Sum():
            return " + ".join(map(formula, layout.parts))
        case Product():
            return " x ".join(f"({formula(f)})" if isinstance(f, Sum) else formula(f) for f in layout.factors)
        case _:
            return str(layout.size)


def children(layout: Layout) -> tuple[Layout, ...]:
    """The layouts that a sum or a product is made of."""
    match layout:
        case Sum():
            return layout.parts
        case Product():
            return layout.factors
        case _:
            return ()


def _occurrences(layout: Layout) -> Iterator[Axis]:
    if isinstance(layout, Axis):
        yield layout
    for child in children(layout):
        yield from _occurrences(child)


def _has(layout: Layout, axis: Axis) -> bool:
    return layout is axis or any(_has(child, axis) for child in children(layout))
