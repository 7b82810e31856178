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

from diffstruct.surgery import Change
from diffstruct.width import Role, Slot, positions

SCALE = 0.01
"""Standard deviation of the weights that the salience does not fix."""


@dataclass(frozen=True)
class Newborn:
    """Writes the entries of new units (see `surgery.Initialize`).

    Where the salience is a multiplier, a new unit's begins at the threshold, and all its weights are
    drawn. Where it is the outgoing weights, these are scaled so that either half of the salience (see
    `salience.outgoing`) has half the threshold for its sum, as in revision 3 of the paper.

    Args:
        threshold: `T_D`.
        generator: the only source of chance.
        salience: `"multiplier"` or `"outgoing"`.
    """

    threshold: float
    generator: np.random.Generator
    salience: str = "outgoing"

    @torch.no_grad()
    def __call__(self, changes: Sequence[Change], values: Mapping[Tensor, Tensor]) -> None:
        """Write the new units' entries into `values`, the resized tensors by those that they replace."""
        growing = [change for change in changes if change.add]
        # What a unit hears comes first: where a new unit hears a new unit, what it says has the last word.
        for change in growing:
            for slot in change.width.having(Role.INCOMING):
                if slot.tensor.ndim > 1:  # biases stay at zero
                    _write(slot, change, values, SCALE * self._normal(slot, change, values))
        for change in growing:
            spoken = [*change.width.having(Role.OUTGOING, Role.RECURRENT)]
            draws = {slot: self._normal(slot, change, values) for slot in spoken}
            if self.salience == "outgoing":
                draws = self._at_threshold(draws, change, values)
            else:
                draws = {slot: SCALE * draw for slot, draw in draws.items()}
            multipliers = [*change.width.having(Role.MULTIPLIER)]
            entries = sum(slot.blocks for slot in multipliers)  # a unit's, in all
            for slot in multipliers:
                value = self.threshold / entries if self.salience == "multiplier" else 1.0
                draws[slot] = torch.full([slot.blocks * change.add], value, dtype=slot.tensor.dtype)
            for slot, draw in draws.items():
                _write(slot, change, values, draw)

    def _normal(self, slot: Slot, change: Change, values: Mapping[Tensor, Tensor]) -> Tensor:
        """Standard normal numbers in the shape of the new units' entries in `slot`."""
        shape = [*values[slot.tensor].shape]
        shape[slot.dim] = slot.blocks * change.add
        return torch.from_numpy(self.generator.standard_normal(shape)).to(slot.tensor.dtype)

    def _at_threshold(
        self, draws: Mapping[Slot, Tensor], change: Change, values: Mapping[Tensor, Tensor]
    ) -> dict[Slot, Tensor]:
        """Scale `draws` so that each new unit is heard outside, and inside, at half the threshold."""
        fan_out = {slot: values[slot.tensor].numel() // change.new_size for slot in draws}
        outputs = sum(fan_out[slot] for slot in draws if slot.role is Role.OUTGOING)
        weight = {slot: 1.0 if slot.role is Role.OUTGOING else outputs / fan_out[slot] for slot in draws}
        result: dict[Slot, Tensor] = {}
        for role in (Role.OUTGOING, Role.RECURRENT):
            group = [slot for slot in draws if slot.role is role]
            if not group:
                continue
            heard = [weight[slot] * slot.per_unit(draws[slot].abs()) for slot in group]
            factor = 0.5 * self.threshold / torch.stack(heard).sum(0)  # [add]
            for slot in group:
                shape = [1] * draws[slot].ndim
                shape[slot.dim] = -1
                result[slot] = draws[slot] * factor.repeat(slot.blocks).view(shape)
        return result


def _write(slot: Slot, change: Change, values: Mapping[Tensor, Tensor], new: Tensor) -> None:
    """Put `new` where the new units' entries of `slot` lie."""
    value = values[slot.tensor]
    units = torch.arange(len(change.keep), change.new_size)
    where = positions(units, change.new_size, slot.blocks).to(value.device)
    value.index_copy_(slot.dim, where, new.to(value))
