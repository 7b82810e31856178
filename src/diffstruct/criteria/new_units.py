"""The new units of one width during surgery: where their entries lie, and how to write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from diffstruct.surgery import Change, write_into
from diffstruct.width import Slot, Width
from diffstruct.width.layout import Axis, Layout, Sizes, along, copies, only, owners, spread
from diffstruct.width.silence import silence_writers, writers
from diffstruct.width.width import per_unit


@dataclass(frozen=True)
class NewUnits:
    """The new units of one width.

    Args:
        change: the change that adds them.
        values: the resized tensors, by those that they replace; of a model that is sharded only their shapes
            are known, since they are whole one after the other, so that nothing but `write` writes into them.
        sizes: units that each changed axis will have.
        threshold: the rule's, for this width.
        generator: the only source of chance.
    """

    change: Change
    values: Mapping[Tensor, Tensor]
    sizes: Sizes
    threshold: float
    generator: np.random.Generator

    @property
    def width(self) -> Width:
        """The width that grows."""
        return self.change.width

    def copies(self, slot: Slot) -> int:
        """How many entries each unit has along the slot's dimension."""
        return copies(slot.layout, self.width.axis, self.sizes)

    def fan_out(self, slot: Slot) -> int:
        """Entries of the resized tensor that belong to one unit."""
        value = self.values[slot.tensor]
        return value.numel() // value.shape[slot.dim] * self.copies(slot)

    def shape(self, slot: Slot) -> list[int]:
        """The shape of the new units' entries in `slot`: `[..., copies * add, ...]`."""
        shape = [*self.values[slot.tensor].shape]
        shape[slot.dim] = self.copies(slot) * self.change.add
        return shape

    def filled(self, slot: Slot, value: float) -> Tensor:
        """The new units' entries in `slot`, all of them `value`."""
        return torch.full(self.shape(slot), value, dtype=slot.tensor.dtype)

    def normal(self, slot: Slot) -> Tensor:
        """Standard normal numbers in the shape of the new units' entries in `slot`."""
        return torch.from_numpy(self.generator.standard_normal(self.shape(slot))).to(slot.tensor.dtype)

    def norms(self, slot: Slot, entries: Tensor) -> Tensor:
        """The L1 norm of each new unit's `entries` in `slot`: `[add]`."""
        return per_unit(entries.abs(), slot.dim, *self._by_themselves(slot))

    def scaled(self, slot: Slot, entries: Tensor, factor: Tensor) -> Tensor:
        """The new units' `entries` in `slot`, each times its unit's `factor` `[add]`."""
        return entries * along(spread(factor, *self._by_themselves(slot)), slot.dim, entries.ndim)

    def write(self, slot: Slot, entries: Tensor) -> None:
        """Put `entries` where the new units' entries in `slot` lie."""
        is_new = owners(slot.layout, self.width.axis, self.sizes) >= len(self.change.keep)
        places = is_new.nonzero().flatten()

        def write(value: Tensor) -> None:
            value.index_copy_(slot.dim, places.to(value.device), entries.to(value))

        write_into(self.values, slot.tensor, write)

    @property
    def is_new(self) -> Tensor:
        """Which units are new, bool `[units]`."""
        return torch.arange(self.change.new_size) >= len(self.change.keep)

    def silence(self, new: Mapping[Axis, Tensor]) -> None:
        """Where normalisations average over units, let them take no notice of the new ones.

        Args:
            new: which units of each width are new, by axis.
        """
        if self.width.normalisation is not None:
            for slot in writers(self.width):
                write = partial(self._silence, slot, new)
                write_into(self.values, slot.tensor, write)

    def _silence(self, slot: Slot, new: Mapping[Axis, Tensor], value: Tensor) -> None:
        silence_writers(self.width, slot, value, self.is_new, self.sizes, new)

    def _by_themselves(self, slot: Slot) -> tuple[Layout, Axis, Sizes]:
        """Layout, axis and sizes of the new units' entries in `slot`, all others left out."""
        axis = self.width.axis
        return only(slot.layout, axis), axis, {**self.sizes, axis: self.change.add}
