"""Axes that a model's code needs to be as large as one another, which no operator shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from itertools import combinations, permutations

from torch import nn

from diffstruct.couple.attributes import parts_of
from diffstruct.couple.findings import Findings
from diffstruct.couple.sides import settled
from diffstruct.couple.terms import Leaf, Term, leaves, unify
from diffstruct.couple.widths import TracedWidths
from diffstruct.width.patterns import matches


def merge(
    traced: TracedWidths, misfits: Sequence[str], model: nn.Module, depth: int, tie: Sequence[str] = ()
) -> bool:
    """Take for one axis those that have to be; whether there are any.

    These are such as fail alone, since the model then does not run, and hang together: they lie in one
    dimension (halves of `chunk`), or one integer may hold the size of both (the width of a head of queries
    and of values, or the width of a stream, and all heads together).

    Args:
        traced: all widths.
        misfits: the names of those with which the model does not run.
        model: the model.
        depth: of the modules that are looked at. The deepest come first: what a block's own integers tie
            together is not to be tied to other blocks.
        tie: patterns of the names of widths that the user ties.
    """
    modules = {module for name, module in model.named_modules() if name.count(".") == depth}
    free = {traced.leaves[name] for name in misfits}
    merged = False
    for one, other in combinations(misfits, 2):
        pairs = [*_pairs(traced, one, other, modules)]
        if any(matches(one, each) and matches(other, each) for each in tie):
            pairs.append((traced.leaves[one], traced.leaves[other]))
        for first, second in pairs:
            if (
                first.size == second.size
                and settled(first) != settled(second)
                and _are_free(first, second, free)
            ):
                unify(first, second, "must be as large as another axis")
                free.update(leaves(first))
                merged = True
    return merged


def _are_free(first: Term, second: Term, free: Set[Leaf]) -> bool:
    """Whether both are made of what fails alone, besides what is fixed."""
    for term in (first, second):
        changing = {leaf for leaf in leaves(term) if leaf.fixed is None}
        if not changing or not changing <= free:
            return False
    return True


def merge_streams(traced: TracedWidths, misfits: Sequence[str], findings: Findings) -> bool:
    """Take a stream for the heads that a layer makes of it, where neither can be learned alone.

    The layer reads and writes as many channels as all of its heads have, and the model's code computes the
    width of a head by dividing one by the number of the other.
    """
    free = {traced.leaves[name] for name in misfits}
    tensors: dict[tuple[nn.Module, str], list[Term]] = {}
    for place, term in findings.places.items():
        tensors.setdefault((place.module, place.name), []).append(term)
    merged = False
    for dims in tensors.values():
        for stream, other in permutations(dims, 2):
            stream = settled(stream)
            if stream not in free:
                continue
            for part in parts_of(settled(other)):
                inside = {*leaves(part)}
                if part.size == stream.size and len(inside) > 1 and inside <= free - {stream}:
                    unify(stream, part, "must be as large as another axis")
                    free.discard(stream)
                    merged = True
                    break
    return merged


def _pairs(
    traced: TracedWidths, one: str, other: str, modules: set[nn.Module]
) -> Iterator[tuple[Term, Term]]:
    """What may have to be as large as what, of two widths, as some modules have it."""
    ours, theirs = (
        {(slot.module, slot.name, slot.dim) for slot in traced.widths[name].slots} for name in (one, other)
    )
    if any(module in modules for module, _, _ in ours & theirs):
        yield traced.leaves[one], traced.leaves[other]
    for mine in traced.candidates[one]:
        for yours in traced.candidates[other]:
            ours_is, theirs_is = mine.attribute, yours.attribute
            if (ours_is.module, ours_is.name) == (
                theirs_is.module,
                theirs_is.name,
            ) and ours_is.module in modules:
                yield mine.term, yours.term
