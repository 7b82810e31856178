"""Tables of widths as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from diffstruct.width.depth import Depth, children_of
from diffstruct.width.width import Slot, Width


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """The rows, one below the other, each column as wide as its longest entry."""
    spans = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(span) for cell, span in zip(row, spans, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def places(width: Width, model: nn.Module, most: int | None = None) -> str:
    """Where a width lies, by the names that modules have in the model: of a depth, its blocks.

    If there are more than `most`, the others are counted.
    """
    names = {module: name for name, module in model.named_modules()}
    if isinstance(width, Depth):
        found = [names[child] for child in children_of(width.stack.container) if child in {*width.blocks}]
    else:
        found = [*dict.fromkeys(_place(slot, names) for slot in width.slots)]
    if most is not None and len(found) > most:
        found[most:] = [f"{len(found) - most} more"]
    return ", ".join(found)


def _place(slot: Slot, names: Mapping[nn.Module, str]) -> str:
    kind = f"{type(slot.module).__name__}."
    name = names.get(slot.module)  # None once our module has been replaced by a plain one
    return str(slot) if name is None else f"{name}.{str(slot).removeprefix(kind)}".removeprefix(".")
