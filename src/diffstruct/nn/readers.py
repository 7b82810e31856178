"""How a module reads a width: which of its dimensions the width is, by the module's type."""

from __future__ import annotations

from functools import singledispatch

from torch import nn

from diffstruct.errors import StructureError
from diffstruct.width.follows import Attribute
from diffstruct.width.layout import Layout
from diffstruct.width.width import Role, Slot


@singledispatch
def reader_slots(reader: nn.Module, layout: Layout) -> tuple[list[Slot], Attribute]:
    """The slots by which `reader` reads an input of this layout, and the attribute with the input's size.

    Raises:
        StructureError: modules of this type cannot read a learned width.
    """
    raise StructureError(
        f"a {type(reader).__name__} cannot read a learned width: "
        "feeds() takes nn.Linear, ds.nn.Multiplier and the recurrent layers of ds.nn"
    )


@reader_slots.register
def _(reader: nn.Linear, layout: Layout) -> tuple[list[Slot], Attribute]:
    slot = Slot(reader, "weight", 1, Role.OUTGOING, layout)
    return [slot], Attribute(reader, "in_features", layout)
