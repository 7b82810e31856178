"""The one form in which a layout is kept, so that equal layouts compare equal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from diffstruct.width.layout import Axis, Fixed, Layout, Product, Sum, Unowned, children, length


def canonical(layout: Layout) -> Layout:
    """The same layout, written in one way, so that equal layouts compare equal (most that people write)."""
    terms = (term for term in _terms(layout) if term[0])
    parts: list[Layout] = []
    for factors, repeats in groupby(terms, key=lambda term: term[1]):
        count = sum(count for count, _ in repeats)
        leading = () if count == 1 and factors else (Fixed(count),)
        parts.append(_unwrapped(Product((*leading, *factors))))
    return _unwrapped(Sum(tuple(parts))) if parts else Fixed(0)


def _unwrapped(layout: Sum[Layout] | Product[Layout]) -> Layout:
    """The only child of a layout that has but one."""
    inner = children(layout)
    return inner[0] if len(inner) == 1 else layout


def _terms(layout: Layout) -> Iterator[tuple[int, tuple[Layout, ...]]]:
    """The layout as a sum of products, each with its leading number apart: how often the rest repeats."""
    match layout:
        case Fixed():
            yield layout.size, ()
        case Axis():
            yield 1, (layout,)
        case Unowned():
            yield 1, (Unowned(canonical(layout.inner)),)
        case Sum():
            for part in layout.parts:
                yield from _terms(part)
        case Product():
            count, factors = _factors(layout)
            if count == 1 and factors and isinstance(factors[0], Sum):  # the first factor is the slowest
                for part in factors[0].parts:
                    yield from _terms(Product((part, *factors[1:])))
            else:
                yield count, factors


def _factors(layout: Product[Layout]) -> tuple[int, tuple[Layout, ...]]:
    """The leading number of a product, and its other factors, none a product, or a number beside another."""
    flat: list[Layout] = [Fixed(1)]
    for factor in map(canonical, layout.factors):
        for each in factor.factors if isinstance(factor, Product) else (factor,):
            last = flat[-1]
            if isinstance(each, Fixed) and isinstance(last, Fixed):
                flat[-1] = Fixed(last.size * each.size)
            elif each != Fixed(1):
                flat.append(each)
    if Fixed(0) in flat:
        return 0, ()
    return length(flat[0]), tuple(flat[1:])
