"""Width: a learned size, and Slot: where it lies inside one dimension of one tensor.

A width knows every place it lives in, so that a change of structure is one list of slots to cut and pad.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any

from torch import Tensor, nn

from diffstruct.errors import StructureError
from diffstruct.layout import Axis, Fixed, Layout, Product, around, length, nesting, owners


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


@dataclass(frozen=True)
class Slot:
    """One dimension of one parameter or buffer that changes with a width.

    The tensor is looked up by module and name, because moving a model can replace the tensor.

    Args:
        module: the module that owns the tensor.
        name: the tensor's attribute name in that module.
        dim: the dimension that the width occupies.
        role: what the entries are to a unit.
        layout: how the width, and others, lie along `dim`.
        fill: what the entries of a new unit begin with; None where they are drawn or, in a vector, zero.
        scale: standard deviation of those that are drawn and whose sum the salience does not fix.
    """

    module: nn.Module
    name: str
    dim: int
    role: Role
    layout: Layout
    fill: float | None = None
    scale: float = 0.01

    @property
    def tensor(self) -> Tensor:
        """The tensor, as it is now."""
        tensor = getattr(self.module, self.name)
        assert isinstance(tensor, Tensor)
        return tensor

    def fan_out(self, axis: Axis) -> int:
        """Entries of the tensor that belong to one unit of `axis`."""
        simple = around(self.layout, axis)
        each = prod(simple) if simple else int((owners(self.layout, axis) >= 0).sum()) // axis.size
        return self.tensor.numel() // self.tensor.shape[self.dim] * each

    def per_unit(self, values: Tensor, axis: Axis) -> Tensor:
        """Sum `values` (shaped like the tensor) over everything but the units of `axis`: `[size]`."""
        others = [dim for dim in range(values.ndim) if dim != self.dim]
        along = values.sum(others) if others else values
        simple = around(self.layout, axis)
        if simple == (1, 1):
            return along
        if simple is not None:
            outer, inner = simple
            inside = along.view(outer, -1, inner).sum(2) if inner > 1 else along.view(outer, -1)
            return inside.sum(0) if outer > 1 else inside[0]
        unit = owners(self.layout, axis).to(along.device)
        return along.new_zeros(axis.size + 1).index_add_(0, unit + 1, along)[1:]

    def __str__(self) -> str:
        shape = _describe(self.layout)
        return f"{type(self.module).__name__}.{self.name}[dim {self.dim}{shape and ' ' + shape}]"


def _describe(layout: Layout) -> str:
    """A layout in short: `x4` for four repetitions, `units x49` for neighbours, empty for the axis alone."""
    if isinstance(layout, Axis):
        return ""
    if isinstance(layout, Product) and len(layout.factors) == 2:
        one, other = layout.factors
        if isinstance(one, Fixed) and isinstance(other, Axis):
            return f"x{one.size}"
        if isinstance(one, Axis) and isinstance(other, Fixed):
            return f"by {other.size}"
    return "in part"


@dataclass(frozen=True)
class Attribute:
    """A Python integer of a module that holds a size.

    Args:
        module: the module.
        name: the attribute.
        layout: it holds the length of this.
        index: which entry, if the attribute is a tuple or list of integers.
    """

    module: nn.Module
    name: str
    layout: Layout
    index: int | None = None

    def holding(self, size: int) -> Any:
        """The attribute's value with `size` in its place."""
        if self.index is None:
            return size
        whole = getattr(self.module, self.name)
        return type(whole)(size if at == self.index else each for at, each in enumerate(whole))


@dataclass(frozen=True, eq=False)
class Width:
    """A size that is learned, shared by every tensor dimension that must change with it.

    Args:
        name: the name by which users know it, such as `"rnn"`.
        axis: the size itself, as it occurs in the slots' layouts.
        slots: every place the width lives in.
        attributes: the Python integers that hold the size, or one that depends on it.

    Raises:
        StructureError: there is no slot, a slot is no dimension of a parameter or buffer, or has another
            length than its layout.
    """

    name: str
    axis: Axis
    slots: tuple[Slot, ...]
    attributes: tuple[Attribute, ...] = ()

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
            found, expected = slot.tensor.shape[slot.dim], length(slot.layout)
            if found != expected:
                raise StructureError(
                    f"width {self.name!r} has {self.size} units, so {slot} must have {expected} entries, "
                    f"but has {found}: make the two sizes agree"
                )
            if nesting(slot.layout, self.axis) != 1:
                raise StructureError(
                    f"the layout of {slot} must contain width {self.name!r}, and not nested in itself"
                )

    @property
    def size(self) -> int:
        """Units now."""
        return self.axis.size

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
