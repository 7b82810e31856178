"""What a new unit begins with: so little that it hardly disturbs the network, yet not nothing.

As in the paper (arXiv:1606.06216): weights from N(0, 0.01^2), biases zero, and a salience at, or just
below, the threshold, so that the unit begins in the reserve and gradient descent can recruit it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffstruct.layout import Axis, owners
from diffstruct.surgery import Change
from diffstruct.width import Role, Slot

SCALE = 0.01
"""Standard deviation of the weights that the salience does not fix."""


@dataclass(frozen=True)
class Newborn:
    """Writes the entries of new units (see `surgery.Initialize`).

    Where the salience is a multiplier, a new unit's begins at the threshold, and all its weights are
    drawn. Where it is the outgoing weights, these are scaled so that either half of the salience (see
    `salience.outgoing`) has half the threshold for its sum, as in revision 3 of the paper; a width that does
    not read itself has one half only, and almost the whole threshold for it.

    Args:
        thresholds: `T_D` of each width, by its name.
        generator: the only source of chance.
        salience: `"multiplier"` or `"outgoing"`.
    """

    thresholds: Mapping[str, float]
    generator: np.random.Generator
    salience: str = "outgoing"

    @torch.no_grad()
    def __call__(self, changes: Sequence[Change], values: Mapping[Tensor, Tensor]) -> None:
        """Write the new units' entries into `values`, the resized tensors by those that they replace."""
        sizes = {change.width.axis: change.new_size for change in changes}
        growing = [change for change in changes if change.add]
        born = {
            change: {slot: _Born.of(slot, change, sizes) for slot in change.width.slots} for change in growing
        }
        # What a unit hears comes first: where a new unit hears a new unit, what it says has the last word.
        for change in growing:
            for slot in change.width.having(Role.INCOMING):
                value, new = values[slot.tensor], born[change][slot]
                if slot.fill is not None:
                    new.write(value, torch.full(new.shape(value), slot.fill, dtype=torch.float64))
                elif value.ndim > 1:  # biases stay at zero
                    new.write(value, slot.scale * self._normal(new, value))
        for change in growing:
            spoken = [*change.width.having(Role.OUTGOING, Role.RECURRENT)]
            draws = {slot: self._normal(born[change][slot], values[slot.tensor]) for slot in spoken}
            threshold = self.thresholds[change.width.name]
            if self.salience == "outgoing":
                draws = _at_threshold(draws, born[change], threshold)
            else:
                draws = {slot: slot.scale * draw for slot, draw in draws.items()}
            multipliers = [*change.width.having(Role.MULTIPLIER)]
            entries = sum(born[change][slot].each for slot in multipliers)  # a unit's, in all
            for slot in multipliers:
                factor = threshold / entries if self.salience == "multiplier" else 1.0
                draws[slot] = torch.full([len(born[change][slot].where)], factor, dtype=torch.float64)
            for slot, draw in draws.items():
                born[change][slot].write(values[slot.tensor], draw)

    def _normal(self, new: _Born, value: Tensor) -> Tensor:
        """Standard normal numbers for the new units' entries."""
        return torch.from_numpy(self.generator.standard_normal(new.shape(value))).to(value.dtype)


@dataclass(frozen=True)
class _Born:
    """Where the entries of new units lie in a slot."""

    dim: int
    where: Tensor  # int64 [k], their positions along the slot's dimension
    unit: Tensor  # int64 [k], the new unit that each belongs to, counted from 0
    add: int  # new units

    @staticmethod
    def of(slot: Slot, change: Change, sizes: Mapping[Axis, int]) -> _Born:
        unit = owners(slot.layout, change.width.axis, sizes)
        first = len(change.keep)
        where = (unit >= first).nonzero()[:, 0]
        return _Born(slot.dim, where, unit[where] - first, change.add)

    @property
    def each(self) -> int:
        """Positions of one unit."""
        return len(self.where) // self.add

    def shape(self, value: Tensor) -> list[int]:
        """The shape of all new entries together."""
        return [len(self.where) if dim == self.dim else size for dim, size in enumerate(value.shape)]

    def write(self, value: Tensor, entries: Tensor) -> None:
        value.index_copy_(self.dim, self.where.to(value.device), entries.to(value))

    def per_unit(self, entries: Tensor) -> Tensor:
        """Sum the entries of each new unit: `[add]`."""
        others = [dim for dim in range(entries.ndim) if dim != self.dim]
        along = entries.sum(others) if others else entries
        return along.new_zeros(self.add).index_add_(0, self.unit, along)

    def spread(self, factors: Tensor, ndim: int) -> Tensor:
        """A factor for each new unit, in the shape of their entries."""
        shape = [1] * ndim
        shape[self.dim] = -1
        return factors[self.unit].view(shape)


def _at_threshold(
    draws: Mapping[Slot, Tensor], born: Mapping[Slot, _Born], threshold: float
) -> dict[Slot, Tensor]:
    """Scale `draws` so that each new unit is heard outside, and inside, at half the threshold."""
    fan_out = {slot: draw.numel() // born[slot].add for slot, draw in draws.items()}
    outputs = sum(fan_out[slot] for slot in draws if slot.role is Role.OUTGOING)
    weight = {slot: 1.0 if slot.role is Role.OUTGOING else outputs / fan_out[slot] for slot in draws}
    groups = {role: [slot for slot in draws if slot.role is role] for role in (Role.OUTGOING, Role.RECURRENT)}
    share = 0.5 if groups[Role.RECURRENT] else 0.999  # below the threshold, however the sum is rounded
    result: dict[Slot, Tensor] = {}
    for group in filter(None, groups.values()):
        heard = [weight[slot] * born[slot].per_unit(draws[slot].abs()) for slot in group]
        factor = share * threshold / torch.stack(heard).sum(0)  # [add]
        for slot in group:
            result[slot] = draws[slot] * born[slot].spread(factor, draws[slot].ndim)
    return result
