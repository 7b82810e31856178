"""Multipliers for models that have none: a trainable factor per unit, in front of the weights that read it.

The paper's revisions 1 and 2 judge a unit by such a factor. In a model without one the factor is a
parametrization of the reading weights, `w[:, i] * m[i]`, one `m` for all readers of a unit; at the end it is
multiplied into the weights and removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from diffstruct.surgery import Copy, begin_state, forget_parameters
from diffstruct.width import Axis, Layout, Role, Slot, Width
from diffstruct.width.layout import along, spread


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
        return weight * along(spread(self.factors, self._layout, self._axis), self._dim, weight.ndim)


@dataclass
class Parametrized:
    """Widths whose units have multipliers now, and what was added for that.

    Args:
        widths: by name.
        places: the modules and tensors that are parametrized, and how.
        order: the parameters of these modules before.
    """

    widths: dict[str, Width]
    places: list[tuple[nn.Module, str, UnitMultiplier]]
    order: dict[nn.Module, list[str]]

    def remove(self, optimizers: Sequence[Optimizer], copies: Sequence[Copy] = ()) -> None:
        """Multiply the factors into the weights, those of copies too; let the optimizers forget them."""
        forget_parameters(optimizers, [own.factors for _, _, own in self.places])
        for module, name in dict.fromkeys((module, name) for module, name, _ in self.places):
            for each in (module, *(copy.modules[module] for copy in copies)):
                if parametrize.is_parametrized(each, name):
                    _remove(each, name, self.order[module])


def parametrize_readers(widths: Mapping[str, Width], optimizers: Sequence[Optimizer]) -> Parametrized:
    """Give every unit a multiplier, trained by the optimizer of the weights that read it.

    The widths must be such as `cannot_multiply` has nothing against. With an error, nothing has changed.
    """
    added: dict[str, list[Slot]] = {}
    places: list[tuple[nn.Module, str, UnitMultiplier]] = []
    modules = {slot.module for width in widths.values() for slot in width.having(Role.OUTGOING)}
    order = {module: [*module._parameters] for module in modules}
    try:
        for width in (width for width in widths.values() if not any(width.having(Role.MULTIPLIER))):
            readers = [*width.having(Role.OUTGOING)]
            tensor = readers[0].tensor
            factors = nn.Parameter(torch.ones(width.size, dtype=tensor.dtype, device=tensor.device))
            for slot in readers:
                own = UnitMultiplier(factors, width.axis, slot.layout, slot.dim)
                parametrize.register_parametrization(slot.module, slot.name, own)
                places.append((slot.module, slot.name, own))
                added.setdefault(width.name, []).append(Slot(own, "factors", 0, Role.MULTIPLIER, width.axis))
            _train(factors, f"{width.name}.factors", [_raw(slot).tensor for slot in readers], optimizers)
    except BaseException:
        Parametrized({}, places, order).remove(optimizers)
        raise
    slots = {name: (*map(_raw, width.slots), *added.get(name, [])) for name, width in widths.items()}
    attached = {name: replace(width, slots=slots[name]) for name, width in widths.items()}
    return Parametrized(attached, places, order)


def _train(
    factors: nn.Parameter, name: str, readers: Iterable[Tensor], optimizers: Sequence[Optimizer]
) -> None:
    """Put `factors` into the group of the weights that read the units, whose options they share.

    A group of their own would not do: learning rate schedulers count the groups.
    """
    wanted = {id(tensor) for tensor in readers}
    optimizer, group, reader = next(
        (optimizer, group, parameter)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
        if id(parameter) in wanted
    )
    named = "param_names" in group
    # By way of a group of their own, so that the optimizer checks and prepares them.
    optimizer.add_param_group({"params": [(name, factors) if named else factors]})
    added = optimizer.param_groups.pop()
    group["params"] += added["params"]
    if named:
        group["param_names"] += added["param_names"]
    begin_state(optimizer, group, factors, reader)


def _remove(module: nn.Module, name: str, order: Sequence[str]) -> None:
    """Remove the parametrization of a parameter, whose place among the others is that in `order`."""
    # PyTorch removes it from the module's class, which deep copies of the module share: it gets its own.
    shared = type(module)
    members = {key: each for key, each in vars(shared).items() if key not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, members)
    parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    for later in order[order.index(name) + 1 :]:
        if later in module._parameters:
            module._parameters[later] = module._parameters.pop(later)


def cannot_multiply(width: Width) -> str | None:
    """Why a parametrization cannot multiply the weights that read a width; None if one can."""
    for slot in width.having(Role.OUTGOING):
        feeds_too = any(each.role is not Role.OUTGOING and each.tensor is slot.tensor for each in width.slots)
        modules = {each.module for each in width.slots if each.tensor is slot.tensor}
        own = isinstance(slot.module, (nn.RNNBase, parametrize.ParametrizationList))
        if own or feeds_too or len(modules) > 1:
            return (
                f"is read by {slot}, in front of which no multiplier can be put: exclude it, or use "
                "criterion=ds.OutgoingNorm()"
            )
    return None


def _raw(slot: Slot) -> Slot:
    """The slot where the tensor is now, under its parametrization, if it has one."""
    if not parametrize.is_parametrized(slot.module, slot.name):
        return slot
    return replace(slot, module=slot.module.get_submodule(f"parametrizations.{slot.name}"), name="original")
