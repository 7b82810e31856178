"""`Width`: a learned size. `Slot`: where it lies inside one dimension of one tensor.

A width lists every tensor dimension that depends on it, so that a change of structure cuts and pads these.
How its units lie along a dimension, beside those of other widths or in blocks, is the slot's `Layout`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor, nn

from diffstruct.errors import StructureError
from diffstruct.width.canonical import canonical
from diffstruct.width.follows import Attribute, Normalisation, Rescaled
from diffstruct.width.layout import (
    NOW,
    Axis,
    Fixed,
    Layout,
    Product,
    Sizes,
    along,
    axes,
    formula,
    length,
    nested_twice,
    spread,
    unit_sums,
)
from diffstruct.width.parts import whole


class Role(Enum):
    """What the entries of a slot are to a unit of the width."""

    INCOMING = "incoming"
    """Weights and biases that the unit's output is computed with, and its running statistics."""
    OUTGOING = "outgoing"
    """Weights of other layers that take the unit's output as their input."""
    RECURRENT = "recurrent"
    """Weights of the unit's own layer that take its output as their input."""
    MULTIPLIER = "multiplier"
    """One trainable factor per unit."""


READERS = (Role.OUTGOING, Role.RECURRENT)
"""The roles of all weights that take a unit's output as their input, in other layers and in its own."""


@dataclass(frozen=True)
class Slot:
    """One dimension of one parameter or buffer that changes with a width.

    The tensor is looked up by module and name, because moving a model can replace the tensor.

    Args:
        module: the module that owns the tensor.
        name: the tensor's attribute name in that module.
        dim: the dimension that the width occupies, counted from 0.
        role: what the entries are to a unit.
        layout: how the units lie along `dim`, together with those of all other widths that lie there; the
            slot keeps it in canonical form.
        fill: what the entries of a new unit begin with; None: they are drawn, or zero, depending on the role.
        scale: standard deviation of entries that are drawn, if nothing else fixes it; None: that of a new
            PyTorch module.
        feeds: whether weights that read units feed them as well, as those of a tied embedding do.

    Raises:
        StructureError: an axis is multiplied by itself in `layout`.

    Example:
        The width of a hidden layer, written by hand:

        >>> from torch import nn
        >>> import diffstruct as ds
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> units = ds.Axis(4)
        >>> slots = (
        ...     ds.Slot(model[0], "weight", 0, ds.Role.INCOMING, units),
        ...     ds.Slot(model[0], "bias", 0, ds.Role.INCOMING, units),
        ...     ds.Slot(model[2], "weight", 1, ds.Role.OUTGOING, units),
        ... )
        >>> sizes = (
        ...     ds.Attribute(model[0], "out_features", units),
        ...     ds.Attribute(model[2], "in_features", units),
        ... )
        >>> ds.Width("hidden", units, slots, sizes)
        Width('hidden', size=4, slots=3)
    """

    module: nn.Module
    name: str
    dim: int
    role: Role
    layout: Layout
    fill: float | None = field(default=None, compare=False)
    scale: float | None = field(default=None, compare=False)
    feeds: bool = False

    def __post_init__(self) -> None:
        if nested_twice(self.layout) is not None:
            raise StructureError(
                f"{self} has every unit of a width for every unit of the same width along one dimension, "
                "so that the size cannot be learned: reshape the tensor so that each has its own dimension"
            )
        object.__setattr__(self, "layout", canonical(self.layout))

    @property
    def tensor(self) -> Tensor:
        """The tensor, as it is now."""
        tensor = getattr(self.module, self.name)
        assert isinstance(tensor, Tensor)
        return tensor

    def by_entry(self, values: Tensor, axis: Axis) -> Tensor:
        """One value per unit, spread over the tensor's entries.

        Args:
            values: of the units of `axis`, `[units]`.
            axis: one that lies along `dim`.

        Returns:
            A view that broadcasts against the tensor: `[length]` along `dim`, 1 in all other dimensions. It
            is 1 where an entry belongs to no unit of `axis`.
        """
        return along(spread(values, self.layout, axis), self.dim, self.tensor.ndim)

    def per_unit(self, values: Tensor, axis: Axis) -> Tensor:
        """Sum `values`, shaped like the tensor, over all entries of each unit of `axis`: `[units]`."""
        return per_unit(values, self.dim, self.layout, axis)

    def __str__(self) -> str:
        return f"{type(self.module).__name__}.{self.name}[dim {self.dim}{_arrangement(whole(self.layout))}]"


def per_unit(values: Tensor, dim: int, layout: Layout, axis: Axis, sizes: Sizes = NOW) -> Tensor:
    """Sum `values`, with `layout` along `dim`, over all entries of each unit of `axis`: `[units]`."""
    others = [other for other in range(values.ndim) if other != dim]
    return unit_sums(values.sum(others) if others else values, layout, axis, sizes)


def _arrangement(layout: Layout) -> str:
    """Nothing for a plain axis, ` x4` if all units come four times, `: 49 each` if each has 49 entries."""
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


@dataclass(frozen=True, eq=False)
class Width:
    """A size that is learned, shared by every tensor dimension that must change with it.

    Args:
        name: the name that users know it by, such as `"rnn"`.
        axis: its units; the same object as in the layouts of the slots.
        slots: every tensor dimension that it lies in. `Slot` shows how to write them by hand.
        attributes: those that hold the size, or one that follows from it, as a Python integer.
        rescaled: gains and other numbers that depend on the size.
        normalisation: where units are averaged over; None: nowhere.

    Raises:
        StructureError: there is no slot, a slot is no dimension of a parameter or buffer, its layout has
            another length than the dimension, or does not contain `axis`.
    """

    name: str
    axis: Axis
    slots: tuple[Slot, ...]
    attributes: tuple[Attribute, ...] = ()
    rescaled: tuple[Rescaled, ...] = ()
    normalisation: Normalisation | None = None

    def __post_init__(self) -> None:
        if not self.slots:
            raise StructureError(f"width {self.name!r} has no slots: give it at least one slot")
        for slot in self.slots:
            if slot.name not in slot.module._parameters and slot.name not in slot.module._buffers:
                where = f"{type(slot.module).__name__}.{slot.name}"
                if not hasattr(slot.module, slot.name):
                    raise StructureError(
                        f"width {self.name!r} has a slot {where}, which does not exist: name a parameter or "
                        "buffer of the module"
                    )
                raise StructureError(
                    f"{where} is computed from other tensors (as under a parametrization), so that its size "
                    "cannot be learned: remove the parametrization"
                )
            if not 0 <= slot.dim < slot.tensor.ndim:
                raise StructureError(
                    f"{slot} must name one of the tensor's {slot.tensor.ndim} dimensions, counted from 0: "
                    f"give a dim from 0 to {slot.tensor.ndim - 1}"
                )
            if self.axis not in axes(slot.layout):
                raise StructureError(
                    f"{slot} is a slot of width {self.name!r}, but its layout does not contain the width's "
                    "axis: use the same Axis object in both"
                )
        self.check_lengths()

    def check_lengths(self) -> None:
        """Refuse a slot whose dimension has another length than its layout.

        Raises:
            StructureError: names the slot, and how many entries it must have and has.
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
        """The slots whose role is one of `roles`, in order; a dimension that modules share comes once."""
        seen: set[tuple[int, int, Layout]] = set()
        for slot in self.slots:
            place = id(slot.tensor), slot.dim, slot.layout
            if slot.role in roles and place not in seen:
                seen.add(place)
                yield slot

    def __repr__(self) -> str:
        return f"Width({self.name!r}, size={self.size}, slots={len(self.slots)})"
