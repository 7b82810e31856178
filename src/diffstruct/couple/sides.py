"""Products of two activations, such as that of queries and keys: where they read the units they sum over.

A unit of what such a product sums over makes no difference if one of the two has zeros there. So the weights
that write it on one side stand for its outgoing weights. Where one layer computes both sides, a part of its
weights does; which part is which no operator shows, so that there are several possibilities, for the proof
to try.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from diffstruct.couple.findings import Findings, Place
from diffstruct.couple.layouts import layout_of
from diffstruct.couple.terms import Leaf, Term, find, leaves, product_of, sum_of
from diffstruct.width.canonical import canonical
from diffstruct.width.layout import Axis, Layout, Product, Sum, Unowned

MANY = 8
"""As many times a part may be repeated in one layer."""


@dataclass(frozen=True)
class Side:
    """One side of a product.

    Args:
        term: what the product sums over.
        places: of the weights that write it.
        parts: by place, how the entries of this side lie there: one layout for each possibility, or one for
            all of them.
    """

    term: Term
    places: tuple[Place, ...]
    parts: Mapping[Place, Sequence[Layout]]

    @property
    def choices(self) -> int:
        """How many possibilities there are."""
        return max(map(len, self.parts.values()))

    def part(self, place: Place, choice: int) -> Layout:
        """How the entries of this side lie in a place, by one of the possibilities."""
        return self.parts[place][min(choice, len(self.parts[place]) - 1)]


def sides_of(findings: Findings, axes: Mapping[Leaf, Axis]) -> list[Side]:
    """For each product of two activations one side, of those whose size can be learned.

    It is the side that lies in weights of its own if there is one, or that whose weights are used last.
    """
    order = {tensor: index for index, tensor in enumerate(findings.used)}
    found: dict[frozenset[Place], Side] = {}
    for meeting in findings.inner:
        if not any(leaf in axes for leaf in leaves(meeting.term)):
            continue
        both = []
        for places in dict.fromkeys((meeting.one, meeting.other)):
            side = _side(meeting.term, _written_last(places, order), findings, axes)
            if side is not None and (side.choices > 1 or meeting.one != meeting.other):
                both.append(side)
        if both:
            best = min(both, key=lambda side: (side.choices, -max(order[p.tensor_id] for p in side.places)))
            found.setdefault(frozenset(best.places), best)
    return [*found.values()]


def _written_last(places: Iterable[Place], order: Mapping[int, int]) -> tuple[Place, ...]:
    """Those of the module that is used last: a gain behind a linear layer, say."""
    modules: dict[nn.Module, list[Place]] = {}
    for place in places:
        if place.tensor_id in order:
            modules.setdefault(place.module, []).append(place)
    if not modules:
        return ()
    last = max(modules.values(), key=lambda each: max(order[place.tensor_id] for place in each))
    return tuple(sorted(last, key=lambda place: order[place.tensor_id]))


def _side(term: Term, places: Sequence[Place], findings: Findings, axes: Mapping[Leaf, Axis]) -> Side | None:
    parts = {}
    for place in places:
        parts[place] = [*occurrences(settled(findings.places[place]), settled(term), axes)]
    if not places or not all(parts.values()) or len({len(each) for each in parts.values()} - {1}) > 1:
        return None
    return Side(term, tuple(places), parts)


def settled(term: Term) -> Term:
    """The term with all that is known by now, written flat."""
    term = find(term)
    if isinstance(term, Sum):
        return sum_of([settled(part) for part in term.parts])
    if isinstance(term, Product):
        return product_of([settled(factor) for factor in term.factors])
    return term


def occurrences(term: Term, wanted: Term, axes: Mapping[Leaf, Axis]) -> Iterator[Layout]:
    """How `term` lies, once for each time that it has `wanted` in it: all but these entries are not meant.

    Both are settled. A part that is repeated a fixed number of times occurs as often.
    """
    if _same([term], [wanted], axes):
        yield layout_of(term, axes)
    elif isinstance(term, Sum):
        sought = wanted.parts if isinstance(wanted, Sum) else (wanted,)
        start = 0
        while start < len(term.parts):
            stop = start + len(sought)
            if _same(term.parts[start:stop], sought, axes):
                inner: Iterable[Layout] = [layout_of(sum_of(term.parts[start:stop]), axes)]
            else:
                stop = start + 1
                inner = occurrences(term.parts[start], wanted, axes)
            before, after = (_unowned(each, axes) for each in (term.parts[:start], term.parts[stop:]))
            for each in inner:
                yield canonical(Sum((*before, each, *after)))
            start = stop
    elif isinstance(term, Product):
        yield from _in_product(term, wanted, axes)


def _in_product(term: Product[Term], wanted: Term, axes: Mapping[Leaf, Axis]) -> Iterator[Layout]:
    factors, sought = term.factors, wanted.factors if isinstance(wanted, Product) else (wanted,)
    starts = range(len(factors))
    at = next((i for i in starts if _same(factors[i : i + len(sought)], sought, axes)), None)
    if at is None:
        for index, factor in enumerate(factors):
            outer = [layout_of(each, axes) for each in factors[:index]]
            rest = layout_of(product_of(factors[index + 1 :]), axes)
            for inner in occurrences(factor, wanted, axes) if isinstance(factor, Sum) else ():
                yield canonical(Product((*outer, inner, rest)))
        return
    counts = [i for i in range(at) if 1 < factors[i].size <= MANY and _is_fixed(factors[i], axes)]
    if not counts:
        yield canonical(layout_of(term, axes))
    # Three is what queries, keys and values are; a number of heads that is fixed is another.
    for index in sorted(counts, key=lambda i: factors[i].size != 3):
        outer = [layout_of(each, axes) for each in factors[:index]]
        inner = layout_of(product_of(factors[index + 1 :]), axes)
        for copy in range(factors[index].size):
            parts = [inner if each == copy else Unowned(inner) for each in range(factors[index].size)]
            yield canonical(Product((*outer, Sum(tuple(parts)))))


def _unowned(parts: Sequence[Term], axes: Mapping[Leaf, Axis]) -> list[Layout]:
    return [Unowned(layout_of(part, axes)) for part in parts]


def _same(ours: Sequence[Term], theirs: Sequence[Term], axes: Mapping[Leaf, Axis]) -> bool:
    """Whether settled terms are the same, one by one; what does not change is the same if it is as large."""
    if len(ours) != len(theirs):
        return False
    for one, other in zip(ours, theirs, strict=True):
        if one is other:
            continue
        if isinstance(one, Sum) and isinstance(other, Sum):
            if not _same(one.parts, other.parts, axes):
                return False
        elif isinstance(one, Product) and isinstance(other, Product):
            if not _same(one.factors, other.factors, axes):
                return False
        elif not (one.size == other.size and _is_fixed(one, axes) and _is_fixed(other, axes)):
            return False
    return True


def _is_fixed(term: Term, axes: Mapping[Leaf, Axis]) -> bool:
    return not any(leaf in axes for leaf in leaves(term))


def others(layout: Layout) -> Layout:
    """The entries that `layout` does not mean, and not those that it means."""
    match layout:
        case Unowned():
            return layout.inner
        case Sum():
            return Sum(tuple(map(others, layout.parts)))
        case Product() if _parted(layout):
            return Product(tuple(others(f) if _parted(f) else f for f in layout.factors))
        case _:
            return Unowned(layout)


def _parted(layout: Layout) -> bool:
    match layout:
        case Unowned():
            return True
        case Sum():
            return any(map(_parted, layout.parts))
        case Product():
            return any(map(_parted, layout.factors))
        case _:
            return False
