"""Widths of several layers that are to be one, so that a single number can say how large they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from diffstruct.couple.found import FoundWidths
from diffstruct.couple.trials import ProofError
from diffstruct.errors import ConfigurationError, StructureError
from diffstruct.width.canonical import canonical
from diffstruct.width.follows import Attribute, Normalisation, Rescaled
from diffstruct.width.layout import Axis, Fixed, Layout, Product, Sum, Unowned
from diffstruct.width.patterns import check_patterns, matches
from diffstruct.width.width import Role, Slot, Width


def tie_widths(found: FoundWidths, patterns: Sequence[str]) -> None:
    """Make one width of all those that a pattern matches, under the pattern as its name.

    A unit of it is the unit of the same number in each of the layers: all of them come and go together. The
    new width is proved as every other is, and refused with a reason if that fails.

    Args:
        found: changed in place.
        patterns: of the names of its widths.

    Raises:
        ConfigurationError: a pattern matches no width, two match the same one, or the widths that one
            matches cannot be one, being of several sizes or factors of the same dimension.
    """
    groups = _groups([*found.widths], patterns)
    if not groups:
        return
    if found.proof is None:
        raise ConfigurationError(
            "tie needs example_inputs: the layers of diffstruct.nn declare their widths one by one"
        )
    for pattern, names in groups.items():
        sizes = {name: found.widths[name].size for name in names}
        if len({*sizes.values()}) > 1:
            raise ConfigurationError(
                f"tie has {pattern!r}, but the widths that it matches have different sizes, {sizes}: build "
                "the model with equal ones, or tie fewer"
            )
    new = {pattern: Axis(found.widths[names[0]].size) for pattern, names in groups.items()}
    axes = {found.widths[name].axis: new[pattern] for pattern, names in groups.items() for name in names}
    home = {name: pattern for pattern, names in groups.items() for name in names}
    members: dict[str, list[Width]] = {}
    for name, width in found.widths.items():
        members.setdefault(home.get(name, name), []).append(width)
    try:
        widths = {name: _merged(name, several, axes) for name, several in members.items()}
    except StructureError as error:
        raise ConfigurationError(f"widths that tie={[*patterns]} matches cannot be one: {error}") from error
    found.widths.clear()
    found.widths.update(widths)
    for pattern in groups:
        try:
            found.widths[pattern] = found.proof.prove([[found.widths[pattern]]], ()).width
        except ProofError as error:
            found.refuse(pattern, f"tied: {error}")


def _groups(names: Sequence[str], patterns: Sequence[str]) -> dict[str, list[str]]:
    """The names that each pattern matches."""
    check_patterns(patterns, names, "tie")
    groups: dict[str, list[str]] = {}
    taken: dict[str, str] = {}
    for pattern in dict.fromkeys(patterns):
        for name in names:
            if matches(name, pattern):
                if name in taken:
                    raise ConfigurationError(
                        f"tie has {taken[name]!r} and {pattern!r}, which both match the width {name!r}: a "
                        "width can be tied once"
                    )
                taken[name] = pattern
                groups.setdefault(pattern, []).append(name)
    return groups


def _merged(name: str, widths: Sequence[Width], axes: Mapping[Axis, Axis]) -> Width:
    """One width with all that several have, where `axes` says what stands in the place of which axis."""
    slots: dict[tuple[int, str, int, Layout], Slot] = {}
    rescaled: dict[Rescaled, None] = {}
    attributes: dict[tuple[int, str, int | None], Attribute] = {}
    for width in widths:
        for slot in width.slots:
            slot = replace(slot, layout=_substituted(slot.layout, axes))
            place = id(slot.module), slot.name, slot.dim, slot.layout
            # What one of them reads as a layer behind, the new width is read by from outside.
            if place not in slots or slot.role is Role.OUTGOING:
                slots[place] = slot
        for each in width.attributes:
            layout = _substituted(each.layout, axes)
            attributes.setdefault((id(each.module), each.name, each.index), replace(each, layout=layout))
        for gain in width.rescaled:
            part = None if gain.part is None else (gain.part[0], _substituted(gain.part[1], axes))
            rescaled[replace(gain, layout=_substituted(gain.layout, axes), part=part)] = None
    return Width(
        name,
        axes.get(widths[0].axis, widths[0].axis),
        tuple(slots.values()),
        tuple(attributes.values()),
        tuple(rescaled),
        _normalisation(widths, axes),
    )


def _normalisation(widths: Sequence[Width], axes: Mapping[Axis, Axis]) -> Normalisation | None:
    """How the units of several widths are normalised.

    Raises:
        StructureError: a unit that is silent for the normalisations of one is not for those of another.
    """
    nowhere: frozenset[tuple[nn.Module, str, int]] = frozenset()
    own = [width.normalisation for width in widths]
    found = {
        None
        if each is None
        else replace(each, layout=canonical(_substituted(each.layout, axes)), inside=nowhere)
        for each in own
    }
    if len(found) > 1:
        names = [width.name for width in widths]
        raise StructureError(f"{names} are not all averaged over by the same kind of normalisation")
    one = found.pop()
    inside = nowhere.union(*(each.inside for each in own if each is not None))
    return None if one is None else replace(one, inside=inside)


def _substituted(layout: Layout, axes: Mapping[Axis, Axis]) -> Layout:
    """The layout with other axes in the place of some."""
    match layout:
        case Axis():
            return axes.get(layout, layout)
        case Fixed():
            return layout
        case Sum():
            return Sum(tuple(_substituted(part, axes) for part in layout.parts))
        case Product():
            return Product(tuple(_substituted(factor, axes) for factor in layout.factors))
        case Unowned():
            return Unowned(_substituted(layout.inner, axes))
