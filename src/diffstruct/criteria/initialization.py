"""What a new unit begins with: so little that it hardly disturbs the network, yet not nothing.

As in the paper (arXiv:1606.06216): weights from N(0, 0.01^2), biases zero, and a salience at, or just
below, the threshold, so that the unit begins in the reserve and gradient descent can recruit it.

Where units are judged by what they earn, a new one hears as loudly as the model's own units did when it
was made, biases and all, and speaks a twentieth as loudly: what nobody could want to hear is never asked
for, and a small voice disturbs nobody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffstruct.surgery.plan import Change
from diffstruct.width.layout import Sizes, copies, only, owners
from diffstruct.width.width import Role, Slot, Width, per_unit

SCALE = 0.01
"""Standard deviation of the weights that the salience does not fix, where the model does not say."""

VOICE = 0.05
"""How loudly a new unit speaks, relative to a new module's weights, where it is judged by what it earns."""


@dataclass(frozen=True)
class Newborn:
    """Writes the entries of new units (see `surgery.Initialize`).

    Where the salience is a multiplier, a new unit's begins at the threshold, and all its weights are
    drawn. Where it is the outgoing weights, these are scaled so that either half of the salience (see
    `norms.outgoing`) has half the threshold for its sum, as in revision 3 of the paper.

    Args:
        thresholds: `T_D` of each width, by its name.
        generator: the only source of chance.
        salience: `"multiplier"`, `"outgoing"` or `"earnings"`.
    """

    thresholds: Mapping[str, float]
    generator: np.random.Generator
    salience: str = "outgoing"

    @torch.no_grad()
    def __call__(self, changes: Sequence[Change], values: Mapping[Tensor, Tensor]) -> None:
        """Write the new units' entries into `values`, the resized tensors by those that they replace."""
        sizes = {change.width.axis: change.new_size for change in changes}
        growing = [_Birth(change, values, sizes) for change in changes if change.add]
        # What a unit hears comes first: where a new unit hears a new unit, what it says has the last word.
        for birth in growing:
            for slot in birth.width.having(Role.INCOMING):
                parameter = slot.name in slot.module._parameters
                entries = None if slot.fill is None else birth.filled(slot, slot.fill)
                own = self.salience == "earnings" and slot.tensor.requires_grad
                if parameter and (own or (entries is None and slot.tensor.ndim > 1)):
                    drawn = self._scale(slot) * self._normal(slot, birth)
                    entries = drawn if entries is None else entries + drawn
                if entries is not None:  # else biases and buffers stay at zero
                    birth.write(slot, entries)
        for birth in growing:
            for slot, entries in self._spoken(birth).items():
                birth.write(slot, entries)

    def _spoken(self, birth: _Birth) -> dict[Slot, Tensor]:
        """The entries by which the new units are heard, by slot."""
        threshold = self.thresholds[birth.width.name]
        spoken = [*birth.width.having(Role.OUTGOING, Role.RECURRENT)]
        entries = {slot: self._normal(slot, birth) for slot in spoken if slot.fill is None}
        if self.salience == "outgoing":
            entries = _at_threshold(entries, birth, threshold)
        else:
            voice = VOICE if self.salience == "earnings" else 1.0
            entries = {slot: voice * self._scale(slot) * draw for slot, draw in entries.items()}
        multipliers = [*birth.width.having(Role.MULTIPLIER)]
        factors = sum(birth.copies(slot) for slot in multipliers)  # a unit's, in all
        for slot in multipliers:
            value = threshold / factors if self.salience == "multiplier" else 1.0
            entries[slot] = birth.filled(slot, value)
        for slot in (*spoken, *multipliers):
            if slot.fill is not None:
                entries[slot] = birth.filled(slot, slot.fill)
        return entries

    def _scale(self, slot: Slot) -> float:
        """The standard deviation of the new units' entries in `slot`."""
        if slot.scale is not None:
            return slot.scale
        return fresh_scale(slot) if self.salience == "earnings" else SCALE

    def _normal(self, slot: Slot, birth: _Birth) -> Tensor:
        """Standard normal numbers in the shape of the new units' entries in `slot`."""
        return torch.from_numpy(self.generator.standard_normal(birth.shape(slot))).to(slot.tensor.dtype)


def fresh_scale(slot: Slot) -> float:
    """The standard deviation of a new module's weights: of numbers between plus and minus `fan_in ** -0.5`.

    `fan_in` is what an entry of the output reads through the tensor; of a bias, through its module's weights.
    """
    tensor = slot.tensor
    weights = (each for each in slot.module._parameters.values() if each is not None and each.ndim > 1)
    if tensor.ndim == 1:
        tensor = next((each for each in weights if len(each) == len(tensor)), tensor.new_zeros(1, 1))
    return 1 / math.sqrt(3 * tensor.shape[1:].numel())


@dataclass(frozen=True)
class _Birth:
    """The new units of one width, and where their entries lie.

    Args:
        change: what brings them.
        values: the resized tensors, by those that they replace.
        sizes: units that each changed axis will have.
    """

    change: Change
    values: Mapping[Tensor, Tensor]
    sizes: Sizes

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

    def heard(self, slot: Slot, entries: Tensor) -> Tensor:
        """The L1 norm of each new unit's `entries` in `slot`: `[add]`."""
        axis = self.width.axis
        alone = only(slot.layout, axis)
        return per_unit(entries.abs(), slot.dim, alone, axis, {**self.sizes, axis: self.change.add})

    def scaled(self, slot: Slot, entries: Tensor, factor: Tensor) -> Tensor:
        """The new units' `entries` in `slot`, each times its unit's `factor` `[add]`."""
        shape = [1] * entries.ndim
        shape[slot.dim] = -1
        _, units = self._places(slot)
        return entries * factor[units].view(shape)

    def write(self, slot: Slot, entries: Tensor) -> None:
        """Put `entries` where the new units' entries in `slot` lie."""
        value = self.values[slot.tensor]
        where, _ = self._places(slot)
        value.index_copy_(slot.dim, where.to(value.device), entries.to(value))

    def _places(self, slot: Slot) -> tuple[Tensor, Tensor]:
        """Where the new units' entries lie, and which new unit each belongs to: int64 `[copies * add]`."""
        owner = owners(slot.layout, self.width.axis, self.sizes)
        kept = len(self.change.keep)
        where = (owner >= kept).nonzero().flatten()
        return where, owner[where] - kept


def _at_threshold(draws: Mapping[Slot, Tensor], birth: _Birth, threshold: float) -> dict[Slot, Tensor]:
    """Scale `draws` so that each new unit is heard outside, and inside, at half the threshold."""
    outputs = sum(birth.fan_out(slot) for slot in draws if slot.role is Role.OUTGOING)
    weight = {slot: 1.0 if slot.role is Role.OUTGOING else outputs / birth.fan_out(slot) for slot in draws}
    result: dict[Slot, Tensor] = {}
    for role in (Role.OUTGOING, Role.RECURRENT):
        group = [slot for slot in draws if slot.role is role]
        if not group:
            continue
        heard = [weight[slot] * birth.heard(slot, draws[slot]) for slot in group]
        factor = 0.5 * threshold / torch.stack(heard).sum(0)  # [add]
        for slot in group:
            result[slot] = birth.scaled(slot, draws[slot], factor)
    return result
