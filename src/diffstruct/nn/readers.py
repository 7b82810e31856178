"""How a module reads a width: which of its dimensions the width is, by the kind of the module."""

from __future__ import annotations

from functools import singledispatch

from torch import nn

from diffstruct.errors import StructureError
from diffstruct.layout import Layout
from diffstruct.width import Role, Slot


@singledispatch
def reader_slots(reader: nn.Module, layout: Layout) -> tuple[list[Slot], str]:
    """The slots by which `reader` reads an input of this `layout`, and the attribute that holds its size.

    Raises:
        StructureError: modules of this kind cannot read a learned width.
    """
    raise StructureError(
        f"a {type(reader).__name__} cannot read a learned width: "
        "feeds() takes nn.Linear, ds.nn.Multiplier and the recurrent layers of ds.nn"
    )


@reader_slots.register
def _(reader: nn.Linear, layout: Layout) -> tuple[list[Slot], str]:
    return [Slot(reader, "weight", 1, Role.OUTGOING, layout)], "in_features"
