"""The widths of a structure as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import nn

from diffstruct.history import History
from diffstruct.width import Depth, Width
from diffstruct.width.depth import children_of
from diffstruct.width.table import aligned, places

PLACES = 3
"""So many are shown of each width; `find_widths` shows them all."""


def table(
    model: nn.Module, widths: Iterable[Width], reserve: Callable[[Width], int], history: History
) -> str:
    """A row for each width: units, sub-threshold units, units added and removed so far, and its places.

    Below a depth, indented, are the widths that live in one of its blocks, in the order of blocks.
    """
    rows = [("width", "units", "reserve", "added", "removed", "places")]
    for title, width in _tree([*widths]):
        counts = width.size, reserve(width), history.added(width.name), history.removed(width.name)
        units, in_reserve, added, removed = map(str, counts)
        rows.append((title, units, in_reserve, added, removed, places(width, model, PLACES)))
    return aligned(rows)


def _tree(widths: Sequence[Width]) -> Iterator[tuple[str, Width]]:
    """The widths, each with its name as it is shown."""
    inside: dict[str, list[Width]] = {}
    for depth in (width for width in widths if isinstance(width, Depth)):
        blocks = {*depth.blocks}
        for block in (child for child in children_of(depth.stack.container) if child in blocks):
            modules = {*block.modules()}
            inside.setdefault(depth.name, []).extend(
                width
                for width in widths
                if not isinstance(width, Depth) and {slot.module for slot in width.slots} <= modules
            )
    below = {width.name for each in inside.values() for width in each}
    for width in widths:
        if isinstance(width, Depth):
            yield f"{width.name} (depth)", width
            yield from ((f"  {inner.name}", inner) for inner in inside.get(width.name, ()))
        elif width.name not in below:
            yield width.name, width
