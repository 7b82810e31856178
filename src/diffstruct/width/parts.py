"""Layouts of which only a part is meant: the queries of a layer that computes keys and values too."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from diffstruct.width.canonical import canonical
from diffstruct.width.layout import NOW, Axis, Layout, Product, Sizes, Sum, Unowned, axes, length, owners


def whole(layout: Layout) -> Layout:
    """The layout without the difference between the entries that are meant and the others."""
    return canonical(_whole(layout))


def _whole(layout: Layout) -> Layout:
    match layout:
        case Unowned():
            return _whole(layout.inner)
        case Sum():
            return Sum(tuple(map(_whole, layout.parts)))
        case Product():
            return Product(tuple(map(_whole, layout.factors)))
        case _:
            return layout


def meant(layout: Layout, sizes: Sizes = NOW) -> Tensor:
    """For each position whether it is meant: bool `[length]`."""
    match layout:
        case Sum():
            none = torch.zeros(0, dtype=torch.bool)
            return torch.cat([none, *(meant(part, sizes) for part in layout.parts)])
        case Product():
            result = torch.ones(1, dtype=torch.bool)
            for factor in layout.factors:
                result = (result[:, None] & meant(factor, sizes)).flatten()
            return result
        case _:
            return torch.full([length(layout, sizes)], not isinstance(layout, Unowned))


def belongs(layout: Layout, some: Collection[Axis]) -> Tensor | None:
    """For each position whether it belongs to a unit of `some` axes: bool `[length]`; None if all do."""
    if _all_belong(layout, some):
        return None
    found = torch.zeros(length(layout), dtype=torch.bool)
    for axis in axes(layout):
        if axis in some:
            found |= owners(layout, axis) >= 0
    return found


def _all_belong(layout: Layout, some: Collection[Axis]) -> bool:
    match layout:
        case Sum():
            return all(_all_belong(part, some) for part in layout.parts)
        case Product():
            return any(_all_belong(factor, some) for factor in layout.factors)
        case _:
            return layout in some


def factors_where(mask: Tensor, factor: float) -> Tensor:
    """`factor` where `mask` is true, else one: float64, like `mask`."""
    factors = torch.ones(mask.shape, dtype=torch.float64)
    factors[mask] = factor
    return factors


def positions(layout: Layout, axis: Axis, first: int, sizes: Sizes = NOW) -> Tensor:
    """Where the units of `axis` from the one numbered `first` on lie, in order: int64."""
    match layout:
        case Axis() if layout is axis:
            return torch.arange(length(axis, sizes))[first:]
        case Sum():
            parts, before = [torch.zeros(0, dtype=torch.int64)], 0
            for part in layout.parts:
                if axis in axes(part):
                    parts.append(before + positions(part, axis, first, sizes))
                before += length(part, sizes)
            return torch.cat(parts)
        case Product():
            result = torch.zeros(1, dtype=torch.int64)
            for factor in layout.factors:
                size = length(factor, sizes)
                has = axis in axes(factor)
                inner = positions(factor, axis, first, sizes) if has else torch.arange(size)
                result = (result[:, None] * size + inner).flatten()
            return result
        case _:
            return torch.zeros(0, dtype=torch.int64)
