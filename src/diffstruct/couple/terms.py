"""Dimensions as terms: what is written behind one another, what is nested in one another, and which are one.

Every dimension of every tensor that a model computes has a `Term`. A `Leaf` is an axis of which nothing more
is known; it can be found to be a sum (concatenated parts) or a product (row-major, as `view` nests
dimensions), and two terms can be found to be the same axis. `unify` is the unification of first-order logic,
with sizes: where two terms cut the same dimension at different places, both are cut finer until they agree.

What cannot be made to agree, and what an operator does not treat unit by unit, is `fix`ed: its size will
not be learned, for the reason given. The first reason stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from diffstruct.width.layout import Product, Sum

UNROLLED = 256  # as many parts a product may be unrolled into


class UnificationError(Exception):
    """A term cannot be cut where it would have to be."""


@dataclass(eq=False)
class Leaf:
    """An axis of `size` entries; stands for `bound`, once that is known."""

    size: int
    fixed: str | None = None
    bound: Term | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.size == 0 and self.fixed is None:
            self.fixed = "has no entries"


Term: TypeAlias = "Leaf | Sum[Term] | Product[Term]"


def find(term: Term) -> Term:
    """What `term` is known to be by now: a leaf that stands for nothing else, a sum or a product."""
    while isinstance(term, Leaf) and term.bound is not None:
        term = term.bound
    return term


def sum_of(parts: Sequence[Term]) -> Term:
    """The sum of `parts`, written flat."""
    flat: list[Term] = []
    for part in map(find, parts):
        flat += part.parts if isinstance(part, Sum) else [part] if part.size else []
    return flat[0] if len(flat) == 1 else Sum(tuple(flat)) if flat else Leaf(0)


def product_of(factors: Sequence[Term]) -> Term:
    """The product of `factors`, written flat, without ones."""
    flat: list[Term] = []
    for factor in map(find, factors):
        flat += factor.factors if isinstance(factor, Product) else [factor] if factor.size != 1 else []
    return flat[0] if len(flat) == 1 else Product(tuple(flat)) if flat else Leaf(1)


def leaves(term: Term) -> Iterator[Leaf]:
    """The axes that `term` is made of; one that occurs twice comes twice."""
    term = find(term)
    if isinstance(term, Leaf):
        yield term
    else:
        for inner in term.parts if isinstance(term, Sum) else term.factors:
            yield from leaves(inner)


def fix(term: Term, reason: str) -> None:
    """Forbid all of `term` to change its size."""
    for leaf in leaves(term):
        leaf.fixed = leaf.fixed or reason


def unify(one: Term, other: Term, why: str) -> None:
    """Let both be the same axis, as far as they can be; else fix both because of `why`."""
    try:
        _unify(one, other)
    except UnificationError:
        fix(one, why)
        fix(other, why)


def _unify(one: Term, other: Term) -> None:
    one, other = find(one), find(other)
    if one is other:
        return
    assert one.size == other.size, (one, other)
    if isinstance(one, Leaf):
        _bind(one, other)
    elif isinstance(other, Leaf):
        _bind(other, one)
    elif isinstance(one, Sum):
        _unify_sum(one, other)
    elif isinstance(other, Sum):
        _unify_sum(other, one)
    else:
        _unify_products(list(one.factors), list(other.factors))


def _bind(leaf: Leaf, term: Term) -> None:
    if any(inner is leaf for inner in leaves(term)):
        raise UnificationError  # an axis inside itself
    if leaf.fixed:
        fix(term, leaf.fixed)
    leaf.bound = term


def _unify_sum(one: Sum[Term], rest: Term) -> None:
    *parts, last = one.parts
    for part in parts:
        left, rest = split(rest, part.size)
        _unify(part, left)
    _unify(last, rest)


def _unify_products(ours: list[Term], theirs: list[Term]) -> None:
    while ours and theirs:
        mine, yours = ours.pop(0), theirs.pop(0)
        if mine.size > yours.size:
            mine, rest = factor(mine, yours.size)
            ours.insert(0, rest)
        elif mine.size < yours.size:
            yours, rest = factor(yours, mine.size)
            theirs.insert(0, rest)
        _unify(mine, yours)


def split(term: Term, size: int) -> tuple[Term, Term]:
    """The first `size` entries of `term`, and the others.

    Raises:
        UnificationError: there is no way to cut it there.
    """
    term = find(term)
    if size == 0:
        return Leaf(0), term
    if size == term.size:
        return term, Leaf(0)
    if isinstance(term, Leaf):
        halves = Leaf(size, term.fixed), Leaf(term.size - size, term.fixed)
        term.bound = Sum(halves)
        return halves
    if isinstance(term, Sum):
        before: list[Term] = []
        parts = list(term.parts)
        while size >= parts[0].size:
            size -= parts[0].size
            before.append(parts.pop(0))
        if size:
            begin, parts[0] = split(parts[0], size)
            before.append(begin)
        return sum_of(before), sum_of(parts)
    first, inner = term.factors[0], product_of(term.factors[1:])
    if size % inner.size == 0:
        left, right = split(first, size // inner.size)
        return product_of([left, inner]), product_of([right, inner])
    if first.size > UNROLLED:
        raise UnificationError
    fix(first, "is cut between its units")
    return split(sum_of([inner] * first.size), size)


def factor(term: Term, outer: int) -> tuple[Term, Term]:
    """`term` as a product of a factor of size `outer` and what is nested in it.

    Raises:
        UnificationError: it is no such product.
    """
    term = find(term)
    if outer == 1:
        return Leaf(1), term
    if outer == term.size:
        return term, Leaf(1)
    if term.size % outer:
        raise UnificationError
    if isinstance(term, Leaf):
        left, right = Leaf(outer, term.fixed), Leaf(term.size // outer, term.fixed)
        term.bound = Product((left, right))
        return left, right
    if isinstance(term, Sum):
        return _factor_sum(term, outer)
    before: list[Term] = []
    factors = list(term.factors)
    while outer >= factors[0].size:
        if outer % factors[0].size:
            raise UnificationError
        outer //= factors[0].size
        before.append(factors.pop(0))
    if outer > 1:
        begin, factors[0] = factor(factors[0], outer)
        before.append(begin)
    return product_of(before), product_of(factors)


def _factor_sum(term: Sum[Term], outer: int) -> tuple[Term, Term]:
    """Either each part is a product with the same inner factor, or the parts repeat."""
    inner = term.size // outer
    if all(part.size % inner == 0 for part in term.parts):
        pairs = [factor(part, part.size // inner) for part in term.parts]
        for _, right in pairs[1:]:
            _unify(pairs[0][1], right)
        return sum_of([left for left, _ in pairs]), pairs[0][1]
    if outer > UNROLLED:
        raise UnificationError
    first, rest = split(term, inner)
    while rest.size:
        block, rest = split(rest, inner)
        _unify(first, block)
    return Leaf(outer, "counts repetitions of unlike parts"), first
