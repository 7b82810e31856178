"""Multipliers for models that have none: a trainable factor per unit, in front of the weights that read it.

The paper's revisions 1 and 2 judge a unit by such a factor. In a model that knows nothing of it the factor
is a parametrization of the reading weights, `w[:, i] * m[i]`, one `m` for all readers of a unit; at the end
it is multiplied into the weights, and gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from diffstruct.errors import StructureError
from diffstruct.width.layout import Axis, Layout, owners
from diffstruct.width.width import Role, Slot, Width


class UnitMultiplier(nn.Module):
    """A parametrization that multiplies the weights of each unit by the unit's factor.

    Args:
        factors: `[units]`.
        axis: of the width.
        layout: of the weights' dimension `dim`.
        dim: the dimension in which the weights read the units.
    """

    def __init__(self, factors: nn.Parameter, axis: Axis, layout: Layout, dim: int) -> None:
        super().__init__()
        self.factors = factors
        self._axis, self._layout, self._dim = axis, layout, dim

    def forward(self, weight: Tensor) -> Tensor:
        """The weights as the model uses them, shaped like `weight`."""
        unit = owners(self._layout, self._axis).to(weight.device)
        # Entries of no unit have -1 there, and so take the one at the end.
        by_entry = torch.cat([self.factors, self.factors.new_ones(1)])[unit]
        shape = [1] * weight.ndim
        shape[self._dim] = -1
        return weight * by_entry.view(shape)


def attach(widths: Mapping[str, Width], optimizers: Sequence[Optimizer]) -> dict[str, Width]:
    """Give every unit a multiplier, trained by the optimizer of the weights that read it; return the widths.

    Raises:
        StructureError: weights that read units cannot be multiplied.
    """
    multiplied = [width for width in widths.values() if not any(width.having(Role.MULTIPLIER))]
    for width in multiplied:
        for slot in width.having(Role.OUTGOING):
            _check(slot, width)
    added: dict[str, list[Slot]] = {width.name: [] for width in multiplied}
    for width in multiplied:
        readers = [*width.having(Role.OUTGOING)]
        tensor = readers[0].tensor
        factors = nn.Parameter(torch.ones(width.size, dtype=tensor.dtype, device=tensor.device))
        optimizer = _optimizer_of([_raw(slot).tensor for slot in readers], optimizers)
        optimizer.add_param_group({"params": [factors]})
        for slot in readers:
            own = UnitMultiplier(factors, width.axis, slot.layout, slot.dim)
            module = slot.module
            parametrize.register_parametrization(module, slot.name, own)
            added[width.name].append(Slot(own, "factors", 0, Role.MULTIPLIER, width.axis))
    return {
        name: replace(width, slots=(*map(_raw, width.slots), *added.get(name, [])))
        for name, width in widths.items()
    }


def _raw(slot: Slot) -> Slot:
    """The slot where the tensor is now, under its parametrization, if it has one."""
    if not parametrize.is_parametrized(slot.module, slot.name):
        return slot
    return replace(slot, module=slot.module.get_submodule(f"parametrizations.{slot.name}"), name="original")


def _check(slot: Slot, width: Width) -> None:
    """Refuse weights that a parametrization cannot stand in front of."""
    shared = any(each.role is not Role.OUTGOING and each.tensor is slot.tensor for each in width.slots)
    modules = {each.module for each in width.slots if each.tensor is slot.tensor}
    if isinstance(slot.module, (nn.RNNBase, parametrize.ParametrizationList)) or shared or len(modules) > 1:
        raise StructureError(
            f"a multiplier cannot be put in front of {slot}, which reads width {width.name!r}: exclude it, "
            "or use salience='outgoing'"
        )


def _optimizer_of(tensors: Iterable[Tensor], optimizers: Sequence[Optimizer]) -> Optimizer:
    wanted = {id(tensor) for tensor in tensors}
    for optimizer in optimizers:
        if any(id(p) in wanted for group in optimizer.param_groups for p in group["params"]):
            return optimizer
    return optimizers[0]


def detach(model: nn.Module) -> None:
    """Multiply the factors into the weights, which become plain parameters again, the same objects."""
    for module in [*model.modules()]:
        for name, stack in [*getattr(module, "parametrizations", {}).items()]:
            if all(isinstance(each, UnitMultiplier) for each in stack):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
