"""From axes to widths: which can be learned, where they lie, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from diffstruct.couple.attributes import Candidate, candidates, known_attributes
from diffstruct.couple.terms import Leaf, Product, Sum, Term, find, fix, leaves
from diffstruct.couple.trace import Findings, Place
from diffstruct.nn.multiplier import Multiplier
from diffstruct.width import layout
from diffstruct.width.layout import Axis, Fixed, Layout
from diffstruct.width.width import Role, Slot, Width

NO_WIDTH = ("is space", "is the size of a kernel")
"""Reasons of axes that nobody would take for a width, and that need no word."""


@dataclass(frozen=True)
class Refusal:
    """An axis whose size is not learned: where it lies, and why."""

    places: tuple[str, ...]
    size: int
    reason: str

    def __str__(self) -> str:
        shown = ", ".join(self.places[:3]) + (", ..." if len(self.places) > 3 else "")
        return f"{shown} ({self.size}): {self.reason}"


@dataclass
class Found:
    """The widths of a model, and the axes that are none."""

    widths: dict[str, Width]
    candidates: dict[str, list[Candidate]]
    """For each width the integers that may hold a size of it, and that only the model's code knows of."""
    refused: list[Refusal]
    places: dict[str, tuple[str, ...]]
    leaves: dict[str, Leaf]

    def refuse(self, name: str, reason: str) -> None:
        """Count a width among those that are not learned."""
        self.refused.append(Refusal(self.places[name], self.widths[name].size, reason))


def widths_of(model: nn.Module, findings: Findings) -> Found:
    """Make a width of each axis that weights feed and weights read, and that nothing fixes."""
    names = {module: name for name, module in model.named_modules()}
    lives: dict[Leaf, list[Place]] = {}
    for place, term in findings.places.items():
        inside = [*leaves(term)]
        for leaf in dict.fromkeys(inside):
            lives.setdefault(leaf, []).append(place)
    for leaf, places in lives.items():
        _fix_what_cannot_be_learned(leaf, places, findings)
    axes = {leaf: Axis(leaf.size) for leaf in lives if leaf.fixed is None}
    titles = _titles({leaf: lives[leaf] for leaf in axes}, findings, names)
    found = Found({}, {}, [], {}, {})
    for leaf, places in lives.items():
        shown = tuple(path(place, names) for place in places)
        if leaf in axes:
            title = titles[leaf]
            slots = tuple(_slots(leaf, places, findings, axes))
            attributes = tuple(known_attributes(model, findings, leaf, axes))
            found.places[title], found.leaves[title] = shown, leaf
            found.widths[title] = width = Width(title, axes[leaf], slots, attributes)
            found.candidates[title] = candidates(model, width, leaf, findings, axes)
        elif leaf.size > 1 and not (leaf.fixed or "").startswith(NO_WIDTH):
            found.refused.append(Refusal(shown, leaf.size, leaf.fixed or ""))
    return found


def path(place: Place, names: Mapping[nn.Module, str]) -> str:
    """The place as users write it, `layer.weight[0]`."""
    name = names[place.module]
    return f"{name}.{place.name}[{place.dim}]" if name else f"{place.name}[{place.dim}]"


def _tensor_id(place: Place) -> int:
    return id(getattr(place.module, place.name))


def _fix_what_cannot_be_learned(leaf: Leaf, places: Iterable[Place], findings: Findings) -> None:
    """Refuse an axis that no weights feed, or none read, or that is nested in itself."""
    places = [*places]
    if not any(_tensor_id(place) in findings.used for place in places):
        fix(leaf, "takes no part in what the model does with the example inputs")
    if not any(place in findings.reading for place in places):
        findings.reading |= _one_side(places, findings)
    if not any(place in findings.reading for place in places):
        fix(leaf, "no weights read it")
    if all(place in findings.reading - findings.feeding for place in places):
        fix(leaf, "no weights feed it")
    for place in places:
        if _nested(findings.places[place], leaf) > 1:
            fix(leaf, "is nested in itself")


def _one_side(places: Iterable[Place], findings: Findings) -> set[Place]:
    """Where units are heard through a product of two that they feed (queries and keys): the side used last.

    Its weights say how loud a unit is, and a unit of which they are zero is silent.
    """
    order = {tensor: index for index, tensor in enumerate(findings.used)}
    sides: dict[nn.Module, list[Place]] = {}
    for place in places:
        if place.name in place.module._parameters and _tensor_id(place) in order:
            sides.setdefault(place.module, []).append(place)
    if len(sides) < 2:
        return set()
    return set(max(sides.values(), key=lambda side: max(order[_tensor_id(place)] for place in side)))


def _nested(term: Term, leaf: Leaf) -> int:
    """How often `leaf` is met at most on the way through a product."""
    term = find(term)
    if isinstance(term, Leaf):
        return int(term is leaf)
    if isinstance(term, Sum):
        return max(_nested(part, leaf) for part in term.parts)
    return sum(_nested(factor, leaf) for factor in term.factors)


def layout_of(term: Term, axes: Mapping[Leaf, Axis]) -> Layout:
    """The term with an axis for each leaf that is learned, and all else of fixed size."""
    term = find(term)
    if isinstance(term, Leaf):
        return axes[term] if term in axes else Fixed(term.size)
    if isinstance(term, Sum):
        parts: list[Layout] = []
        for part in _flat(term, Sum):
            made = layout_of(part, axes)
            before = parts[-1] if parts else None
            if isinstance(made, Fixed) and isinstance(before, Fixed):
                parts[-1] = Fixed(before.size + made.size)
            else:
                parts.append(made)
        if len(parts) > 1 and all(part is parts[0] for part in parts):
            return layout.Product((Fixed(len(parts)), parts[0]))
        return parts[0] if len(parts) == 1 else layout.Sum(tuple(parts))
    factors: list[Layout] = []
    for factor in _flat(term, Product):
        made = layout_of(factor, axes)
        outer = factors[-1] if factors else None
        if isinstance(made, Fixed) and isinstance(outer, Fixed):
            factors[-1] = Fixed(outer.size * made.size)
        else:
            factors.append(made)
    return factors[0] if len(factors) == 1 else layout.Product(tuple(factors))


def _flat(term: Term, kind: type[Sum] | type[Product]) -> Iterator[Term]:
    """The parts of a sum, or the factors of a product, at any depth."""
    term = find(term)
    if isinstance(term, kind):
        for inner in term.parts if isinstance(term, Sum) else term.factors:
            yield from _flat(inner, kind)
    else:
        yield term


def _slots(
    leaf: Leaf, places: Iterable[Place], findings: Findings, axes: Mapping[Leaf, Axis]
) -> Iterator[Slot]:
    fed = {(place.module, place.name) for place in places if place not in findings.reading}
    reading = [place for place in places if place in findings.reading]
    # Units that only their like read are read from outside all the same: by later layers of the same width.
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
        # A new unit begins as its neighbours did: with their mean where it has one number, else as random.
        fill = values.mean().item() if alone and tensor.is_floating_point() else None
        fill = None if role is not Role.INCOMING else fill
        scale = values.std().item() if tensor.numel() > 1 else None
        yield Slot(
            place.module, place.name, place.dim, role, layout_of(findings.places[place], axes), fill, scale
        )


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
        first = min(feeding, key=lambda place: order.get(_tensor_id(place), len(order)))
        base[leaf] = names[first.module].split(".parametrizations.")[0] or first.name
    counts: dict[str, int] = {}
    for name in base.values():
        counts[name] = counts.get(name, 0) + 1
    titles: dict[Leaf, str] = {}
    for leaf, name in base.items():
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
