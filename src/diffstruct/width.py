"""Width: a learned size, and Slot: where it lies inside one dimension of one tensor.

A width knows every place it lives in, so that a change of structure is one list of slots to cut and pad.
The positions of unit i of n in a slot of b blocks are `i, n + i, ..., (b - 1) * n + i`: the layout of the
four gates of an LSTM, or of the two directions of a bidirectional layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from diffstruct.errors import StructureError


class Role(Enum):
    """What the entries of a slot are to a unit of the width."""

    INCOMING = "incoming"
    """Weights and biases that feed the unit."""
    OUTGOING = "outgoing"
    """Weights by which other layers read the unit."""
    RECURRENT = "recurrent"
    """Weights by which the unit's own layer reads it."""
    MULTIPLIER = "multiplier"
    """One trainable factor per unit."""


def positions(units: Tensor, size: int, blocks: int) -> Tensor:
    """Where `units` (int64 `[k]`) of `size` lie in a dimension of `blocks` blocks: `[blocks * k]`."""
    offsets = torch.arange(blocks, device=units.device) * size
    return (offsets[:, None] + units).reshape(-1)


@dataclass(frozen=True)
class Slot:
    """One dimension of one parameter or buffer that changes with a width.

    The tensor is looked up by module and name, because moving a model can replace the tensor.

    Args:
        module: the module that owns the tensor.
        name: the tensor's attribute name in that module.
        dim: the dimension that the width occupies.
        role: what the entries are to a unit.
        blocks: how many times the units repeat along `dim`, which has `blocks * size` entries.
    """

    module: nn.Module
    name: str
    dim: int
    role: Role
    blocks: int = 1

    @property
    def tensor(self) -> Tensor:
        """The tensor, as it is now."""
        tensor = getattr(self.module, self.name)
        assert isinstance(tensor, Tensor)
        return tensor

    @property
    def size(self) -> int:
        """Units along the dimension."""
        return self.tensor.shape[self.dim] // self.blocks

    def per_unit(self, values: Tensor) -> Tensor:
        """Sum `values` (shaped like the tensor) over everything but the units: `[size]`."""
        others = [dim for dim in range(values.ndim) if dim != self.dim]
        along = values.sum(others) if others else values
        return along if self.blocks == 1 else along.view(self.blocks, -1).sum(0)

    def __str__(self) -> str:
        repeat = f" x{self.blocks}" if self.blocks > 1 else ""
        return f"{type(self.module).__name__}.{self.name}[dim {self.dim}{repeat}]"


@dataclass(frozen=True, eq=False)
class Width:
    """A size that is learned, shared by every tensor dimension that must change with it.

    Args:
        name: the name by which users know it, such as `"rnn"`.
        slots: every place the width lives in.
        attributes: (module, attribute) pairs that hold the size as a Python integer; an entry of a third
            part says how many times the size it holds.

    Raises:
        StructureError: there is no slot, the slots disagree on the size, or a slot is no dimension of a
            parameter or buffer.
    """

    name: str
    slots: tuple[Slot, ...]
    attributes: tuple[tuple[nn.Module, str, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.slots:
            raise StructureError(f"width {self.name!r} lives in no tensor: give it at least one slot")
        for slot in self.slots:
            if slot.name not in slot.module._parameters and slot.name not in slot.module._buffers:
                raise StructureError(
                    f"{type(slot.module).__name__}.{slot.name} is computed from other tensors (as under a "
                    "parametrization), so that its size cannot be learned: remove the parametrization"
                )
            if not 0 <= slot.dim < slot.tensor.ndim:
                raise StructureError(
                    f"{slot} must name one of the tensor's {slot.tensor.ndim} dimensions, counted from 0"
                )
            length = slot.tensor.shape[slot.dim]
            if length != slot.blocks * self.size:
                raise StructureError(
                    f"width {self.name!r} has {self.size} units in {self.slots[0]}, so {slot} must have "
                    f"{slot.blocks * self.size} entries, but has {length}: make the two sizes agree"
                )

    @property
    def size(self) -> int:
        """Units now."""
        return self.slots[0].size

    def having(self, *roles: Role) -> Iterator[Slot]:
        """The slots whose role is one of `roles`, in order; a tensor that modules share comes once."""
        seen: set[tuple[int, int]] = set()
        for slot in self.slots:
            place = id(slot.tensor), slot.dim
            if slot.role in roles and place not in seen:
                seen.add(place)
                yield slot

    def __repr__(self) -> str:
        return f"Width({self.name!r}, size={self.size}, slots={len(self.slots)})"
