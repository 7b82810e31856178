"""Axes that are averaged over: which averages are normalisations, and what changes with their size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from diffstruct.couple.findings import Average, Findings, Place
from diffstruct.couple.layouts import layout_of
from diffstruct.couple.terms import Leaf, Term, find, fix, leaves
from diffstruct.width.follows import Normalisation, Rescaled
from diffstruct.width.layout import Axis, Product, Sum, length


def fix_averaged(findings: Findings) -> None:
    """Forbid axes that are averaged over, but where normalisations do that and can make up for it."""
    for average in findings.averages:
        if next(_gains(average, findings), None) is None:
            fix(average.term, f"{average.reason}, and has no gain that could make up for another size")
    by_leaf: dict[Leaf, list[Average]] = {}
    for average in findings.averages:
        for leaf in dict.fromkeys(leaves(average.term)):
            by_leaf.setdefault(leaf, []).append(average)
    for leaf, own in by_leaf.items():
        centred = next((average for average in own if average.centred), None)
        if centred is None:
            continue  # a channel of zeros is silent, wherever it lies
        if not all(_centred(average.module, own) for average in own):
            fix(leaf, f"{centred.reason}, and RMSNorm that of its squares: no channel is silent for both")
        for average in own:
            if _has_sum(average.term) or [*leaves(average.term)] != [*leaves(centred.term)]:
                fix(leaf, f"{average.reason} {_beside(average.term, leaf)}")


def normalisation_of(
    leaf: Leaf, findings: Findings, axes: Mapping[Leaf, Axis]
) -> tuple[Normalisation | None, tuple[Rescaled, ...]]:
    """How the axis of `leaf` is normalised, and the gains and numbers that change with its size."""
    own = [average for average in findings.averages if leaf in leaves(average.term)]
    if not own:
        return None, ()
    rescaled: dict[tuple[nn.Module, str], Rescaled] = {}
    for average in own:
        layout = layout_of(average.term, axes)
        for place in _gains(average, findings):
            rescaled[place.module, place.name] = Rescaled(place.module, place.name, layout, -0.5)
        for name in _eps(average):
            written = getattr(average.module, name), length(layout)
            rescaled[average.module, name] = Rescaled(average.module, name, layout, -1.0, written)
    centred = any(average.centred for average in own)
    layout = layout_of(own[0].term, axes)
    return Normalisation(layout, centred, _inside(leaf, own, findings)), (*rescaled.values(),)


def why_none_is_silent(leaf: Leaf, findings: Findings) -> str | None:
    """What keeps a channel that makes no difference from being possible, of an axis that proofs refute."""
    for average in findings.averages:
        if average.centred and average.behind is not None and leaf in leaves(average.term):
            return f"{average.reason} behind {average.behind}, where no channel is the mean of the others"
    return None


def _beside(term: Term, leaf: Leaf) -> str:
    """What a mean is taken over together with an axis."""
    copies = [*leaves(term)].count(leaf)
    if {*leaves(term)} == {leaf} and copies > 1:
        return f"over {copies} copies side by side, whose own means differ"
    return "together with other axes"


def _inside(leaf: Leaf, averages: list[Average], findings: Findings) -> frozenset[tuple[nn.Module, str, int]]:
    """The places of the axis that write none of what is averaged over, as far as that is known."""
    written = frozenset[Place]().union(*(average.dim.places for average in averages))
    modules = {average.module for average in averages}
    own = (place for place, term in findings.places.items() if leaf in leaves(term))
    inside = {place for place in own if place not in written and place.module not in modules}
    return frozenset((place.module, place.name, place.dim) for place in inside) if written else frozenset()


def _gains(average: Average, findings: Findings) -> Iterator[Place]:
    """The gains of a normalisation: the module's parameters that have its axes alone, but for biases."""
    for place, term in findings.places.items():
        if place.module is average.module and place.name in place.module._parameters:
            alone = place.tensor.numel() == place.tensor.shape[place.dim]
            if alone and "bias" not in place.name and [*leaves(term)] == [*leaves(average.term)]:
                yield place


def _eps(average: Average) -> Iterator[str]:
    """The names of the module's numbers that are added to the variance."""
    for name, value in vars(average.module).items():
        if isinstance(value, float) and "eps" in name.lower() and average.eps in (None, value):
            yield name


def _centred(module: nn.Module, averages: list[Average]) -> bool:
    """Whether a module takes means of values, besides those of squares or of deviations."""
    return any(average.centred for average in averages if average.module is module)


def _has_sum(term: Term) -> bool:
    term = find(term)
    if isinstance(term, Product):
        return any(map(_has_sum, term.factors))
    return isinstance(term, Sum)
