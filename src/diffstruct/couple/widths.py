"""From axes to widths: which can be learned, where they lie, and what they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from diffstruct.couple.attributes import Candidate, candidates, known_attributes
from diffstruct.couple.findings import ONE_UNIT, Findings, Place, lost_unit
from diffstruct.couple.found import Refusal
from diffstruct.couple.layouts import layout_of
from diffstruct.couple.normalised import fix_averaged, normalisation_of
from diffstruct.couple.terms import Leaf, Term, find, fix, leaves
from diffstruct.nn.multiplier import Multiplier
from diffstruct.width.layout import Axis, Sum
from diffstruct.width.width import READERS, Role, Slot, Width

NO_WIDTH = ("is spatial", "is the size of a kernel")
"""How the reasons begin of axes that are no width to anybody, and are not listed among the refusals."""


@dataclass
class TracedWidths:
    """The widths that a trace shows, not yet proved, and the axes that are none."""

    widths: dict[str, Width]
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
    for leaf, places in lives.items():
        _fix_what_cannot_be_learned(leaf, places, findings)
    axes = {leaf: Axis(leaf.size) for leaf in lives if leaf.fixed is None}
    titles = _titles({leaf: lives[leaf] for leaf in axes}, findings, names)
    found = TracedWidths({}, {}, [], {})
    for leaf, places in lives.items():
        if leaf in axes:
            title = titles[leaf]
            slots = tuple(_slots(leaf, places, findings, axes))
            attributes = tuple(known_attributes(model, findings, leaf, axes))
            found.leaves[title] = leaf
            normalisation, rescaled = normalisation_of(leaf, findings, axes)
            width = Width(title, axes[leaf], slots, attributes, rescaled, normalisation)
            found.widths[title] = width
            found.candidates[title] = candidates(model, width, leaf, findings, axes)
        elif _worth_a_word(leaf, any(place in findings.reading for place in places)):
            shown = tuple(place.path(names) for place in places)
            found.refused.append(Refusal(shown, leaf.size, leaf.fixed or ""))
    return found


def _worth_a_word(leaf: Leaf, is_read: bool) -> bool:
    """Whether users could take a fixed axis for a width; `is_read` if weights read it."""
    reason = leaf.fixed or ""
    if leaf.size == 1:
        return reason.startswith(ONE_UNIT)
    return leaf.size > 1 and (is_read or not reason.startswith(NO_WIDTH))


def _fix_what_cannot_be_learned(leaf: Leaf, places: Iterable[Place], findings: Findings) -> None:
    """Refuse an axis that no weights feed, or none read, or that is nested in itself."""
    places = [*places]
    if not any(place.tensor_id in findings.used for place in places):
        fix(leaf, "takes no part in what the model does with the example inputs")
    if not any(place in findings.reading for place in places):
        findings.reading |= _one_side(places, findings)
    if not any(place in findings.reading for place in places):
        views = [view for term, view in findings.merged_ones if find(term) is leaf]
        fix(leaf, lost_unit(f"it is merged by {views[0]}") if views else "no weights read it")
    if all(place in findings.reading - findings.feeding for place in places):
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


def _slots(
    leaf: Leaf, places: Iterable[Place], findings: Findings, axes: Mapping[Leaf, Axis]
) -> Iterator[Slot]:
    fed = {(place.module, place.name) for place in places if place not in findings.reading}
    reading = [place for place in places if place in findings.reading]
    # Where only units of the same width read units, later layers of the width are what reads from outside.
    inside = {place for place in reading if (place.module, place.name) in fed}
    inside = inside if len(inside) < len(reading) else set()
    for place in places:
        role = Role.INCOMING
        if isinstance(place.module, Multiplier):
            role = Role.MULTIPLIER
        elif place in findings.reading:
            role = Role.RECURRENT if place in inside else Role.OUTGOING
        tensor = getattr(place.module, place.name)
        alone = tensor.numel() == tensor.shape[place.dim] or place.name in place.module._buffers
        values = tensor.detach().double()
        # A new unit begins as the others did: with their mean where it has one number, else at random.
        fill = values.mean().item() if alone and tensor.is_floating_point() else None
        fill = None if role is not Role.INCOMING else fill
        scale = values.std().item() if tensor.numel() > 1 else None
        layout = layout_of(findings.places[place], axes)
        feeds = role in READERS and place in findings.feeding
        yield Slot(place.module, place.name, place.dim, role, layout, fill, scale, feeds)


def _titles(
    lives: Mapping[Leaf, list[Place]], findings: Findings, names: Mapping[nn.Module, str]
) -> dict[Leaf, str]:
    """A name for each width: the first module that feeds it, and what it is there, if that has several."""
    heads = {leaf for term in findings.heads for leaf in leaves(term)}
    inner = {leaf for term in findings.inner for leaf in leaves(term)}
    order = {tensor: index for index, tensor in enumerate(findings.used)}
    base: dict[Leaf, str] = {}
    for leaf, places in lives.items():
        feeding = [place for place in places if place not in findings.reading or place in findings.feeding]
        first = min(feeding, key=lambda place: order.get(place.tensor_id, len(order)))
        base[leaf] = names[first.module].split(".parametrizations.")[0] or first.name
    counts = Counter(name for leaf, name in base.items() if leaf.size > 1)
    titles: dict[Leaf, str] = {}
    for leaf, name in sorted(base.items(), key=lambda item: item[0].size == 1):  # does not rename the others
        if leaf in heads:
            name += ".heads"
        elif leaf in inner:
            name += ".head_width"
        elif counts[name] > 1:
            name += f".part{sum(other.startswith(name) for other in titles.values())}"
        taken, title = 1, name
        while title in titles.values():
            taken += 1
            title = f"{name}{taken}"
        titles[leaf] = title
    return titles
