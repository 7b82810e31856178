"""Width: a learned size, and Slot: where it lies inside one dimension of one tensor.

A width knows every place it lives in, so that a change of structure is one list of slots to cut and pad.
How its units lie along a dimension, beside those of other widths or in blocks, is the slot's `Layout`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import Tensor, nn

from diffstruct.errors import StructureError
from diffstruct.width.layout import (
    NOW,
    Axis,
    Fixed,
    Layout,
    Product,
    Sizes,
    along,
    axes,
    canonical,
    formula,
    length,
    nested_twice,
    spread,
    unit_sums,
)


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


READERS = (Role.OUTGOING, Role.RECURRENT)
"""The roles of the weights that read a unit: its outgoing weights, in other layers and in its own."""


@dataclass(frozen=True)
class Slot:
    """One dimension of one parameter or buffer that changes with a width.

    The tensor is looked up by module and name, because moving a model can replace the tensor.

    Args:
        module: the module that owns the tensor.
        name: the tensor's attribute name in that module.
        dim: the dimension that the width occupies.
        role: what the entries are to a unit.
        layout: how the units lie along `dim`, among those of all other widths that do; the slot keeps it
            in canonical form.
        fill: what a new unit's entries begin with; None: they are drawn, or zero, as their role demands.
        scale: standard deviation of those that are drawn, where nothing else fixes it; None: as a new
            module of PyTorch's would draw them.

    Raises:
        StructureError: an axis is multiplied by itself.
    """

    module: nn.Module
    name: str
    dim: int
    role: Role
    layout: Layout
    fill: float | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        if nested_twice(self.layout) is not None:
            raise StructureError(
                f"{self} has every unit of a width for every unit of the same width along one dimension, "
                "which cannot follow its size: give each its own dimension"
            )
        object.__setattr__(self, "layout", canonical(self.layout))

    @property
    def tensor(self) -> Tensor:
        """The tensor, as it is now."""
        tensor = getattr(self.module, self.name)
        assert isinstance(tensor, Tensor)
        return tensor

    def by_entry(self, values: Tensor, axis: Axis) -> Tensor:
        """`values` `[units]` of `axis`, to be multiplied with the tensor; 1 where an entry is of no unit."""
        return along(spread(values, self.layout, axis), self.dim, self.tensor.ndim)

    def per_unit(self, values: Tensor, axis: Axis) -> Tensor:
        """Sum `values` (shaped like the tensor) over everything but the units of `axis`: `[units]`."""
        return per_unit(values, self.dim, self.layout, axis)

    def __str__(self) -> str:
        return f"{type(self.module).__name__}.{self.name}[dim {self.dim}{_arrangement(self.layout)}]"


def per_unit(values: Tensor, dim: int, layout: Layout, axis: Axis, sizes: Sizes = NOW) -> Tensor:
    """Sum `values`, laid out so along `dim`, over everything but the units of `axis`: `[units]`."""
    others = [other for other in range(values.ndim) if other != dim]
    return unit_sums(values.sum(others) if others else values, layout, axis, sizes)


def _arrangement(layout: Layout) -> str:
    """Nothing for the units by themselves, ` x4` for four times all units, `: 49 each` for 49 of each."""
    factors = layout.factors if isinstance(layout, Product) else (layout,)
    match factors:
        case (Axis(),):
            return ""
        case (Fixed(times), Axis()):
            return f" x{times}"
        case (Axis(), Fixed(each)):
            return f": {each} each"
        case (Fixed(times), Axis(), Fixed(each)):
            return f" x{times}: {each} each"
        case _:
            return f": {formula(layout)}"


@dataclass(frozen=True)
class Attribute:
    """A module's Python integer that must tell the length of a layout, such as `in_features`.

    Args:
        module: the module that has it.
        name: the attribute.
        layout: what it tells the length of.
        index: which entry, where the attribute is a tuple of them, as `normalized_shape` is.
    """

    module: nn.Module
    name: str
    layout: Layout
    index: int | None = None

    def changed(self, value: Any, sizes: Sizes) -> Any:
        """What becomes of the attribute's `value` when the axes have these sizes."""
        size = length(self.layout, sizes)
        if self.index is None:
            return size
        entries = [*value]
        entries[self.index] = size
        return type(value)(entries)


@dataclass(frozen=True, eq=False)
class Width:
    """A size that is learned, shared by every tensor dimension that must change with it.

    Args:
        name: the name by which users know it, such as `"rnn"`.
        axis: its units, as the layouts of the slots mention them.
        slots: every place the width lives in.
        attributes: those that hold the size as a Python integer, or one that follows from it.

    Raises:
        StructureError: there is no slot, a slot is no dimension of a parameter or buffer, or its layout
            does not fit the dimension or has no part of the width.
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
            if self.axis not in axes(slot.layout):
                raise StructureError(
                    f"{slot} is a slot of width {self.name!r}, but its layout does not mention the width's "
                    "axis: make it of the same axis"
                )
        self.check_lengths()

    def check_lengths(self) -> None:
        """Refuse a slot whose dimension is not as long as its layout says.

        Raises:
            StructureError: names the slot, the entries that it must have, and those that it has.
        """
        for slot in self.slots:
            expected, found = length(slot.layout), slot.tensor.shape[slot.dim]
            if found != expected:
                raise StructureError(
                    f"width {self.name!r} has {self.size} units, so {slot} must have {expected} entries, "
                    f"but has {found}: make the two sizes agree"
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
