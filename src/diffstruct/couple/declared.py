"""The widths that modules of `diffstruct.nn` declare themselves."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn

from diffstruct.errors import StructureError
from diffstruct.width.width import Width


@runtime_checkable
class DeclaresWidth(Protocol):
    """A module that knows every place where its width lies."""

    def declare_width(self, name: str) -> Width:
        """The module's width, under the name that the model gives the module."""
        ...


def declared_widths(model: nn.Module) -> dict[str, Width]:
    """The widths that the modules of `model` declare, by the modules' names in it.

    Raises:
        StructureError: no module declares a width, or one has not been told which layers read it.
    """
    widths = {
        name or "model": module.declare_width(name or "model")
        for name, module in model.named_modules()
        if isinstance(module, DeclaresWidth)
    }
    if not widths:
        raise StructureError(
            f"no module of {type(model).__name__} declares a width: give example_inputs, or build it with "
            "the layers of diffstruct.nn (RNN, GRU, LSTM)"
        )
    _refuse_half_shared(model, widths)
    return widths


def _refuse_half_shared(model: nn.Module, widths: dict[str, Width]) -> None:
    """Refuse a tensor of a width that a module outside the width shares, and would find cut."""
    inside = {(id(slot.tensor), slot.module) for width in widths.values() for slot in width.slots}
    tensors = {tensor for tensor, _ in inside}
    for name, module in model.named_modules():
        for own, tensor in (*module._parameters.items(), *module._buffers.items()):
            if id(tensor) in tensors and (id(tensor), module) not in inside:
                raise StructureError(
                    f"{name}.{own} is shared with a layer of a learned width, which does not know that "
                    f"{name} reads it: declare it with feeds({name}), or do not share it"
                )
