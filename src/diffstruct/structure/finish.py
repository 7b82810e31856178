"""Out the other end: a plain model, which runs without this package."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from diffstruct.couple.proof import Proof, Unproved
from diffstruct.errors import StructureError
from diffstruct.nn.multiplier import Multiplier
from diffstruct.nn.recurrent import _Recurrent
from diffstruct.width.layout import owners
from diffstruct.width.width import Role, Width


def plain(model: nn.Module, widths: Iterable[Width], proof: Proof | None) -> nn.Module:
    """Replace our modules in `model` by those of `torch.nn`, with the same parameters; return the model.

    Raises:
        StructureError: a multiplier cannot be folded into what reads it.
    """
    _fold_multipliers(model, widths, proof)
    new: dict[nn.Module, nn.Module] = {}
    for module in [*model.modules()]:
        if isinstance(module, Multiplier):
            new[module] = nn.Identity()
        elif isinstance(module, _Recurrent):
            new[module] = module.to_torch()
            for name, parameter in module.named_parameters():
                setattr(new[module], name, parameter)  # the same object, which the optimizer knows
    for module in [*model.modules()]:
        for name, child in [*module._modules.items()]:
            if child in new:
                module._modules[name] = new[child]
    return new.get(model, model)


@torch.no_grad()
def _fold_multipliers(model: nn.Module, widths: Iterable[Width], proof: Proof | None) -> None:
    """Multiply the weights that read each unit by the unit's multiplier, which becomes one."""
    multiplied = [
        width for width in widths if any(isinstance(slot.module, Multiplier) for slot in width.slots)
    ]
    if not multiplied:
        return
    if proof is None:
        raise StructureError(
            "without example_inputs nobody can tell which layers read through a ds.nn.Multiplier: give "
            "Structure example_inputs, or use Multiplier.fold_into"
        )
    before = proof.outputs()
    for width in multiplied:
        for slot in width.having(Role.MULTIPLIER):
            # [n], by the unit; entries that belong to no unit keep their factor of one
            factors = slot.tensor.detach().clone()
            for reader in width.having(Role.OUTGOING):
                unit = owners(reader.layout, width.axis).to(factors.device)
                by_entry = torch.where(unit >= 0, factors[unit.clamp_min(0)], torch.ones_like(factors[:1]))
                shape = [1] * reader.tensor.ndim
                shape[reader.dim] = -1
                reader.tensor.mul_(by_entry.view(shape))
            slot.tensor.fill_(1.0)
    try:
        proof.same(
            proof.outputs(), before, "folding a multiplier into what reads it changes what the model says"
        )
    except Unproved as error:
        raise StructureError(
            f"{error}: some layers read past the multiplier; let all read through it"
        ) from error
