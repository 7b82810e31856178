"""Widths after blocks have come or gone: which there are, where they lie, and what they are called. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from diffstruct.width.depth import Depth
from diffstruct.width.layout import Axis
from diffstruct.width.width import READERS, Attribute, Role, Slot, Width


@dataclass(frozen=True)
class NewBlock:
    """A block that has come, a copy of another.

    Args:
        twins: by module of the other its module.
        memo: by id of what belongs to the other, its copy: what `copy.deepcopy` remembers.
    """

    twins: Mapping[nn.Module, nn.Module]
    memo: dict[int, Any]


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


def outside(widths: Iterable[Width], block: nn.Module) -> list[Axis]:
    """The axes of widths that do not live in a block alone."""
    inside = {*block.modules()}
    return [width.axis for width in widths if not all(slot.module in inside for slot in width.slots)]


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
        slots = [slot for slot in width.slots if slot.module not in gone]
        attributes = [each for each in width.attributes if each.module not in gone]
        shared = not any({slot.module for slot in width.slots} <= {*block.twins} for block in new)
        if shared:
            for block in new:
                slots += _slots(width, block)
                attributes += _attributes(width, block)
        if _fed_and_read(slots):
            title = _free(_renamed(name, slots, before, after), found)
            kept = width if title == name and len(slots) == len(width.slots) and not shared else None
            kept = kept or Width(title, width.axis, tuple(slots), tuple(attributes))
            found[title] = Followed(kept, name, False)
    for block in new:
        for name, width in widths.items():
            if not isinstance(width, Depth) and {slot.module for slot in width.slots} <= {*block.twins}:
                own = tuple(_slots(width, block))
                paths = {module: after[twin] for module, twin in block.twins.items()}
                title = _free(_renamed(name, width.slots, before, paths), found)
                axis = deepcopy(width.axis, block.memo)
                copy = Width(title, axis, own, tuple(_attributes(width, block)))
                found[title] = Followed(copy, name, True)
    return found


def _slots(width: Width, block: NewBlock) -> Iterator[Slot]:
    for slot in width.slots:
        if slot.module in block.twins:
            layout = deepcopy(slot.layout, block.memo)
            yield replace(slot, module=block.twins[slot.module], layout=layout)


def _attributes(width: Width, block: NewBlock) -> Iterator[Attribute]:
    for attribute in width.attributes:
        if attribute.module in block.twins:
            layout = deepcopy(attribute.layout, block.memo)
            yield replace(attribute, module=block.twins[attribute.module], layout=layout)


def _fed_and_read(slots: Sequence[Slot]) -> bool:
    roles = {slot.role for slot in slots}
    return Role.INCOMING in roles and not roles.isdisjoint(READERS)


def _renamed(
    name: str,
    slots: Sequence[Slot],
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
            first = next((after[slot.module] for slot in slots if slot.module in after), name)
            return first + name[len(path) :]
    return name


def _free(name: str, taken: Collection[str]) -> str:
    """A name like this one that is not taken."""
    title, count = name, 1
    while title in taken:
        count += 1
        title = f"{name}{count}"
    return title
