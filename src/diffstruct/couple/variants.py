"""What a width may be: its slots, and what is rescaled with it, where only a proof can tell.

What no operator shows is which part of a layer that computes queries, keys and values computes which of them,
and whether the scale of attention is computed from the width of a head or stays as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from diffstruct.couple.findings import Findings, Place
from diffstruct.couple.layouts import layout_of
from diffstruct.couple.normalised import normalisation_of
from diffstruct.couple.sides import Side, others
from diffstruct.couple.terms import Leaf, leaves
from diffstruct.couple.tree import Tree
from diffstruct.nn.multiplier import Multiplier
from diffstruct.width.follows import Attribute, Rescaled
from diffstruct.width.layout import Axis, Layout
from diffstruct.width.layout import axes as axes_in
from diffstruct.width.width import READERS, Role, Slot, Width


@dataclass(frozen=True)
class Lies:
    """Where the units of an axis lie.

    Args:
        leaf: the axis.
        places: all its places.
        reading: those of weights that read units.
        sides: of products of activations that sum over it, among others.
    """

    leaf: Leaf
    places: Sequence[Place]
    reading: set[Place]
    sides: Sequence[Side]

    def own_sides(self) -> list[Side]:
        """The sides of products that sum over the axis."""
        return [side for side in self.sides if self.leaf in leaves(side.term)]


def variants_of(
    name: str,
    lies: Lies,
    attributes: Iterable[Attribute],
    tree: Tree,
    findings: Findings,
    axes: Mapping[Leaf, Axis],
) -> list[list[Width]]:
    """What a width may be: for each choice of parts that read it, with what may be rescaled.

    The first in each list is the most likely. Where means are subtracted, all of it comes twice: what is
    normalised goes on as the units, or it does not.
    """
    leaf, sides = lies.leaf, lies.own_sides()
    normalisation, rescaled = normalisation_of(leaf, findings, axes)
    found = []
    for choice in range(max((side.choices for side in sides), default=1)):
        slots = tuple(_slots(lies, choice, findings, axes))
        width = Width(name, axes[leaf], slots, tuple(attributes), rescaled, normalisation)
        weights, numbers = _scales(sides, choice, tree, axes)
        found.append([width])
        if weights:
            found[-1].append(replace(width, rescaled=(*rescaled, *weights)))
        if weights and numbers:
            found[-1].insert(0, replace(width, rescaled=(*rescaled, *weights, *numbers)))
    if normalisation is not None and normalisation.centred:
        returning = replace(normalisation, returns=True)
        found += [[replace(width, normalisation=returning) for width in widths] for widths in found]
    return found


def _slots(lies: Lies, choice: int, findings: Findings, axes: Mapping[Leaf, Axis]) -> Iterator[Slot]:
    places, reading, axis = lies.places, lies.reading, axes[lies.leaf]
    parts = {place: side.part(place, choice) for side in lies.own_sides() for place in side.places}
    fed = {(place.module, place.name) for place in places if place not in reading}
    # Where only units of the same width read units, later layers of the width are what reads from outside.
    inside = {place for place in reading if (place.module, place.name) in fed}
    inside = inside if len(inside) < len(reading) else set()
    for place in places:
        layout = layout_of(findings.places[place], axes)
        if isinstance(place.module, Multiplier):
            yield _slot(place, Role.MULTIPLIER, layout, findings)
        elif place in reading:
            role = Role.RECURRENT if place in inside else Role.OUTGOING
            yield _slot(place, role, layout, findings)
        elif place in parts:
            feeding = others(parts[place])
            if axis in axes_in(feeding):
                yield _slot(place, Role.INCOMING, feeding, findings)
            yield _slot(place, Role.OUTGOING, parts[place], findings)
        else:
            yield _slot(place, Role.INCOMING, layout, findings)


def _slot(place: Place, role: Role, layout: Layout, findings: Findings) -> Slot:
    tensor = place.tensor
    alone = tensor.numel() == tensor.shape[place.dim] or place.name in place.module._buffers
    if place.tensor_id not in findings.spreads:
        values = tensor.detach().double()
        spread = values.std().item() if tensor.numel() > 1 else None
        findings.spreads[place.tensor_id] = values.mean().item(), spread
    mean, scale = findings.spreads[place.tensor_id]
    # A new unit begins as the others did: with their mean where it has one number, else at random.
    fill = mean if alone and tensor.is_floating_point() and role is Role.INCOMING else None
    feeds = role in READERS and place in findings.feeding
    return Slot(place.module, place.name, place.dim, role, layout, fill, scale, feeds)


def _scales(
    sides: Sequence[Side], choice: int, tree: Tree, axes: Mapping[Leaf, Axis]
) -> tuple[list[Rescaled], list[Rescaled]]:
    """What can make up for another scale of attention, and the numbers that may hold the scale.

    The scale is one over the root of what a product sums over, or that root, if a number holds it: it is told
    by its name and value.
    """
    weights: dict[int, Rescaled] = {}
    numbers: dict[tuple[nn.Module, str], Rescaled] = {}
    for side in sides:
        layout, size = layout_of(side.term, axes), side.term.size
        for place in side.places:
            if place.name in place.module._parameters:
                part = side.part(place, choice)
                own = Rescaled(place.module, place.name, layout, 0.5, part=(place.dim, part))
                weights.setdefault(place.tensor_id, own)
        for module in tree.around([side.places[0].module]):
            for name, value in vars(module).items():
                for power in (-0.5, 0.5):
                    exact = isinstance(value, float) and abs(value / size**power - 1) < 1e-9
                    if exact and size > 1 and _IS_SCALE(name.lower()):
                        numbers[module, name] = Rescaled(module, name, layout, power, (value, size))
    return [*weights.values()], [*numbers.values()]


_IS_SCALE = re.compile("scal|norm|sqrt|factor|temp").search
