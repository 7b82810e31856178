"""From axes to widths: which can be learned, where they lie, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

from torch import nn

from diffstruct.couple.attributes import Candidate, candidates, known_attributes
from diffstruct.couple.findings import ONE_UNIT, Findings, Place, lost_unit
from diffstruct.couple.found import Refusal
from diffstruct.couple.normalised import fix_averaged
from diffstruct.couple.sides import Side, sides_of
from diffstruct.couple.terms import Leaf, Term, find, fix, leaves
from diffstruct.couple.titles import titles_of
from diffstruct.couple.tree import Tree
from diffstruct.couple.variants import Lies, variants_of
from diffstruct.width.layout import Axis, Sum
from diffstruct.width.width import Width

NO_WIDTH = ("is spatial", "is the size of a kernel", "is indexed one by one", "holds queries")
"""How the reasons begin of axes that are no width to anybody, and are not listed among the refusals."""

AT_THE_EDGE = {
    "is a dimension of the input": "a layer in front of the model, such as an embedding",
    "is a dimension of the output": "a layer behind the model, such as a head",
}
"""What can be done where an axis that would be a width is one of the caller's tensors."""


@dataclass
class TracedWidths:
    """The widths that a trace shows, not yet proved, and the axes that are none."""

    widths: dict[str, Width]
    variants: dict[str, list[list[Width]]]
    """For each width what it may be, for the proof to try: see `variants_of`."""
    candidates: dict[str, list[Candidate]]
    """For each width the integers that may hold a size of it, and that only the model's code knows of."""
    refused: list[Refusal]
    leaves: dict[str, Leaf]


def widths_of(model: nn.Module, findings: Findings) -> TracedWidths:
    """Make a width of each axis that weights feed and weights read, and that nothing fixes."""
    names = {module: name for name, module in model.named_modules()}
    lives: dict[Leaf, list[Place]] = {}
    for place, term in findings.places.items():
        inside = [*leaves(term)]
        for leaf in dict.fromkeys(inside):
            lives.setdefault(leaf, []).append(place)
    fix_averaged(findings)
    axes = {leaf: Axis(leaf.size) for leaf in lives if leaf.fixed is None}
    sides = sides_of(findings, axes)
    reading: dict[Leaf, set[Place]] = {}
    for leaf, places in lives.items():
        reading[leaf] = _reading(leaf, places, sides, findings)
        meets = any(leaf in leaves(side.term) for side in sides)
        _fix_what_cannot_be_learned(leaf, places, reading[leaf], meets, findings)
    for leaf in lives:
        if leaf.fixed is not None:
            axes.pop(leaf, None)
    sides = sides_of(findings, axes)  # parts that lie beside others of another size, which is fixed now
    titles = titles_of({leaf: lives[leaf] for leaf in axes}, findings, names)
    attributes, tree = known_attributes(model, findings, axes), Tree(model)
    found = TracedWidths({}, {}, {}, [], {})
    for leaf, places in lives.items():
        if leaf in axes:
            title = titles[leaf]
            found.leaves[title] = leaf
            lies = Lies(leaf, places, reading[leaf], sides)
            own = attributes.get(leaf, [])
            found.variants[title] = variants_of(title, lies, own, tree, findings, axes)
            found.widths[title] = found.variants[title][0][0]
            found.candidates[title] = candidates(tree, found.widths[title], leaf, findings, axes)
        elif _worth_a_word(leaf, any(place in reading[leaf] for place in places)):
            shown = tuple(place.path(names) for place in places)
            reason = f"{leaf.fixed or ''}{_what_to_do(leaf, places, reading[leaf], findings)}"
            found.refused.append(Refusal(shown, leaf.size, reason))
    return found


def _what_to_do(leaf: Leaf, places: Iterable[Place], reading: Set[Place], findings: Findings) -> str:
    """What would make a width of an axis that weights feed and weights read: a stream of the caller's."""
    fed = {*places} - reading or findings.feeding.intersection(places)
    advice = AT_THE_EDGE.get(leaf.fixed or "", "") if reading and fed else ""
    return f"; it can be learned with {advice}" if advice else ""


def _worth_a_word(leaf: Leaf, is_read: bool) -> bool:
    """Whether users could take a fixed axis for a width; `is_read` if weights read it."""
    reason = leaf.fixed or ""
    if leaf.size == 1:
        return reason.startswith(ONE_UNIT)
    return leaf.size > 1 and (is_read or not reason.startswith(NO_WIDTH))


def _reading(leaf: Leaf, places: Iterable[Place], sides: Iterable[Side], findings: Findings) -> set[Place]:
    """Which of the places of an axis are weights that read its units."""
    places = [*places]
    found = {place for place in places if place in findings.reading}
    for side in sides:
        if side.choices == 1 and leaf in leaves(side.term):
            found |= {place for place in side.places if place in places}
    return found or _one_side(places, findings)


def _fix_what_cannot_be_learned(
    leaf: Leaf, places: Iterable[Place], reading: Set[Place], meets: bool, findings: Findings
) -> None:
    """Refuse an axis that no weights feed, or none read, or that is nested in itself.

    An axis that `meets` is what a product of two activations sums over: part of what feeds it reads it, too.
    """
    places = [*places]
    if not any(place.tensor_id in findings.used for place in places):
        fix(leaf, "takes no part in what the model does with the example inputs")
    if not reading and not meets:
        views = [view for term, view in findings.merged_ones if find(term) is leaf]
        fix(leaf, lost_unit(f"it is merged by {views[0]}") if views else "no weights read it")
    if not {*places} - reading and not findings.feeding.intersection(places):
        fix(leaf, "no weights feed it")
    for place in places:
        if _nested(findings.places[place], leaf) > 1:
            fix(leaf, "is a factor of one dimension twice, so that a unit would be a row and a column of it")


def _one_side(places: Iterable[Place], findings: Findings) -> set[Place]:
    """Where a product of two activations reads units (queries and keys): the weights of the side used last.

    A unit is silent if these weights are zero, so that they stand for its outgoing weights.
    """
    order = {tensor: index for index, tensor in enumerate(findings.used)}
    sides: dict[nn.Module, list[Place]] = {}
    for place in places:
        if place.name in place.module._parameters and place.tensor_id in order:
            sides.setdefault(place.module, []).append(place)
    if len(sides) < 2:
        return set()
    return set(max(sides.values(), key=lambda side: max(order[place.tensor_id] for place in side)))


def _nested(term: Term, leaf: Leaf) -> int:
    """How many factors of a product `leaf` is in, at most."""
    term = find(term)
    if isinstance(term, Leaf):
        return int(term is leaf)
    if isinstance(term, Sum):
        return max(_nested(part, leaf) for part in term.parts)
    return sum(_nested(factor, leaf) for factor in term.factors)
