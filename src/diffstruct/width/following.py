"""Widths after blocks have come or gone: which there are, where they lie, and what they are called. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch import nn

from diffstruct.width.depth import Depth
from diffstruct.width.follows import Attribute, Normalisation, Rescaled
from diffstruct.width.layout import Axis
from diffstruct.width.width import READERS, Role, Slot, Width

Part: TypeAlias = Slot | Attribute | Rescaled
"""Where a width lies, or what depends on its size: something of a module, with a layout."""


@dataclass(frozen=True)
class NewBlock:
    """A block that has come, a copy of another.

    Args:
        twins: by module of the other its module.
        memo: by id of what belongs to the other, its copy: what `copy.deepcopy` remembers.
        shared: the axes that blocks of its depth share, see `Stack`; those of another depth may share others.
    """

    twins: Mapping[nn.Module, nn.Module]
    memo: dict[int, Any]
    shared: Collection[Axis]


@dataclass(frozen=True)
class Followed:
    """A width after blocks have come or gone.

    Args:
        width: as it is now.
        name: that it had before; of a new one that of the width that it is a copy of.
        new: whether it is new.
    """

    width: Width
    name: str
    new: bool


def outside(widths: Iterable[Width], blocks: Iterable[nn.Module]) -> set[Axis]:
    """The axes of widths that do not live in one of some blocks alone."""
    inside = [{*block.modules()} for block in blocks]
    return {
        width.axis
        for width in widths
        if not any({slot.module for slot in width.slots} <= modules for modules in inside)
    }


def follow_blocks(
    widths: Mapping[str, Width],
    gone: Collection[nn.Module],
    new: Sequence[NewBlock],
    before: Mapping[nn.Module, str],
    after: Mapping[nn.Module, str],
) -> dict[str, Followed]:
    """The widths that there are, by the names that they have now.

    A width that lived in a block alone has gone with it; with a new block, those of the block that it was
    copied from are there once more. A width that blocks share, such as a residual stream, lies in those that
    there are. Depths stay what they are.

    Args:
        widths: before, by name.
        gone: the modules that have gone.
        new: the blocks that have come.
        before: the paths of the modules in the model, as they were.
        after: those that they have now.
    """
    found: dict[str, Followed] = {}
    for name, width in widths.items():
        if isinstance(width, Depth):
            found[name] = Followed(width, name, False)
            continue
        inner = any(_lives_in(width, block) for block in new)
        parts = [*_parts(width, gone)]
        for block in new if not inner else ():
            parts += _twins(parts, block)
        if _fed_and_read(parts):
            title = _free(_renamed(name, parts, before, after), found)
            places = _inside(width, gone, () if inner else new)
            found[title] = Followed(_made(width, title, width.axis, parts, places), name, False)
    for block in new:
        for name, width in widths.items():
            if not isinstance(width, Depth) and _lives_in(width, block):
                paths = {module: after[twin] for module, twin in block.twins.items()}
                title = _free(_renamed(name, width.slots, before, paths), found)
                axis = deepcopy(width.axis, block.memo)
                own = [*_twins([*_parts(width)], block)]
                places = _inside(width, [*block.twins], [block])
                if places is not None:
                    places = replace(places, layout=deepcopy(places.layout, block.memo))
                found[title] = Followed(_made(width, title, axis, own, places), name, True)
    return found


def _lives_in(width: Width, block: NewBlock) -> bool:
    """Whether a width lives in the block alone that a new one is a copy of."""
    return width.axis not in block.shared and {slot.module for slot in width.slots} <= {*block.twins}


def _parts(width: Width, gone: Collection[nn.Module] = ()) -> Iterator[Part]:
    """Where a width lies, and what depends on its size, in modules that have not gone."""
    parts: list[Part] = [*width.slots, *width.attributes, *width.rescaled]
    return (part for part in parts if part.module not in gone)


def _twins(parts: Sequence[Part], block: NewBlock) -> list[Part]:
    """The same in a new block."""
    return [_twin(part, block) for part in parts if part.module in block.twins]


def _twin(part: Part, block: NewBlock) -> Part:
    module, layout = block.twins[part.module], deepcopy(part.layout, block.memo)
    if isinstance(part, Rescaled) and part.part is not None:
        return replace(part, module=module, layout=layout, part=deepcopy(part.part, block.memo))
    return replace(part, module=module, layout=layout)


def _inside(width: Width, gone: Collection[nn.Module], new: Sequence[NewBlock]) -> Normalisation | None:
    """What is known of where a width is averaged over, in the modules that there are."""
    known = width.normalisation
    if known is None:
        return None
    there = {place for place in known.inside if place[0] not in gone}
    for block in new:
        there |= {(block.twins[m], name, dim) for m, name, dim in known.inside if m in block.twins}
    return known if there == known.inside else replace(known, inside=frozenset(there))


def _made(
    width: Width, name: str, axis: Axis, parts: Sequence[Part], normalisation: Normalisation | None
) -> Width:
    """A width like another, of these parts; the same object if they are its own."""
    slots = tuple(part for part in parts if isinstance(part, Slot))
    attributes = tuple(part for part in parts if isinstance(part, Attribute))
    rescaled = tuple(part for part in parts if isinstance(part, Rescaled))
    if (name, axis) == (width.name, width.axis) and (*slots, *attributes, *rescaled) == tuple(_parts(width)):
        return width
    made = replace(width, name=name, axis=axis, slots=slots, attributes=attributes, rescaled=rescaled)
    return replace(made, normalisation=normalisation)


def _fed_and_read(parts: Sequence[Part]) -> bool:
    roles = {part.role for part in parts if isinstance(part, Slot)}
    return Role.INCOMING in roles and not roles.isdisjoint(READERS)


def _renamed(
    name: str,
    parts: Sequence[Part],
    before: Mapping[nn.Module, str],
    after: Mapping[nn.Module, str],
) -> str:
    """The name of a width, with the path of the module that it begins with as it is now.

    Where that module has gone, the first that is left stands in its place.
    """
    paths = sorted(
        ((path, module) for module, path in before.items() if path), key=lambda each: -len(each[0])
    )
    for path, module in paths:
        if name == path or name.startswith(f"{path}."):
            if module in after:
                return after[module] + name[len(path) :]
            first = next((after[part.module] for part in parts if part.module in after), name)
            return first + name[len(path) :]
    return name


def _free(name: str, taken: Collection[str]) -> str:
    """A name like this one that is not taken."""
    title, count = name, 1
    while title in taken:
        count += 1
        title = f"{name}{count}"
    return title
