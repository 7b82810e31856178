"""Out the other end: a plain model, which runs without this package."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor, nn

from diffstruct.couple import Proof, ProofError
from diffstruct.criteria import Criterion
from diffstruct.errors import StructureError
from diffstruct.nn import Multiplier
from diffstruct.nn.recurrent import Recurrent
from diffstruct.rule import check_finite, round_up
from diffstruct.structure.operation import block_watch, operate_on
from diffstruct.surgery import Change, Copy, forget_parameters
from diffstruct.width import Followed, Role, Slot, Width
from diffstruct.width.layout import along


def finished(
    model: nn.Module,
    widths: Mapping[str, Width],
    criterion: Criterion,
    keep: Mapping[str, tuple[int, ...]],
    proof: Proof | None,
    undo: ExitStack,
) -> tuple[nn.Module, dict[str, Change], dict[str, Followed]]:
    """Remove all units but those to keep, and our modules.

    Args:
        model: the model.
        widths: of it, by name.
        criterion: that judges them.
        keep: the units that stay, by name, of widths that lose some.
        proof: runs the model.
        undo: that undoes the surgery; weights and modules are to be put back besides.

    Returns:
        The plain model; what was removed, by the widths' names; where blocks were, the widths that are left.

    Raises:
        StructureError: a multiplier cannot be folded into the weights that read it.
    """
    changes = {name: Change(widths[name], units, 0) for name, units in keep.items()}
    training = criterion.training
    optimizers, copies = training.optimizers, training.copies
    followed = block_watch(model, widths, changes, {})
    undo.callback(operate_on(model, changes, {}, optimizers, copies=copies, processes=training.processes))
    folded = _fold_multipliers(widths.values(), copies, proof)
    forget_parameters(optimizers, [multiplier.weight for multiplier in folded])
    write_eps(widths.values(), copies)
    for copy in copies:
        make_plain(copy.modules[model], {copy.modules[multiplier] for multiplier in folded})
    left = followed()
    return make_plain(model, folded), changes, left


def units_at_the_end(
    widths: Mapping[str, Width],
    criterion: Criterion,
    multiple_of: Mapping[str, int],
) -> dict[str, tuple[int, ...]]:
    """The units of each width that stay, by name, of those that lose some: those above the threshold."""
    keep = {}
    for name, width in widths.items():
        values, training = criterion.importance(width).detach().cpu(), criterion.training
        check_finite(values.double().numpy())
        above = int((values > training.threshold(name)).sum())
        least = max(above, training.rules[name].min_units or 1)
        count = min(round_up(least, multiple_of[name]), width.size)
        best = values.argsort(descending=True, stable=True)[:count].sort().values
        if count < width.size:
            keep[name] = tuple(best.tolist())
    return keep


def make_plain(model: nn.Module, folded: Collection[nn.Module]) -> nn.Module:
    """Replace our modules in `model` by those of `torch.nn`, with the same parameters; return the model.

    Args:
        model: the model.
        folded: its multipliers that have been folded; others stay.
    """
    new: dict[nn.Module, nn.Module] = {multiplier: nn.Identity() for multiplier in folded}
    for module in [*model.modules()]:
        if isinstance(module, Recurrent):
            new[module] = module.to_torch()
            for name, parameter in module.named_parameters():
                setattr(new[module], name, parameter)  # the same object, which the optimizer knows
    for module in [*model.modules()]:
        for name, child in [*module._modules.items()]:
            if child in new:
                module._modules[name] = new[child]
    return new.get(model, model)


def write_eps(widths: Iterable[Width], copies: Sequence[Copy] = ()) -> None:
    """Give normalisations the `eps` that the model came with: what its own code builds has that, too.

    It followed the number of channels, so that the change is of the order of `eps` over the variance.
    """
    for each in (each for width in widths for each in width.rescaled):
        if each.written is not None and each.power == -1:
            for module in (each.module, *(copy.modules[each.module] for copy in copies)):
                setattr(module, each.name, each.written[0])


@torch.no_grad()
def _fold_multipliers(
    widths: Iterable[Width], copies: Sequence[Copy], proof: Proof | None
) -> set[Multiplier]:
    """Multiply the weights that read each unit by the unit's multiplier, which becomes one; return these.

    In copies of the model the same is done with their own multipliers.

    Raises:
        StructureError: a multiplier cannot be folded into the weights that read it; nothing has changed then.
    """
    pairs = [
        (slot, reader, width)
        for width in widths
        for slot in width.having(Role.MULTIPLIER)
        if isinstance(slot.module, Multiplier)
        for reader in width.having(Role.OUTGOING)
    ]
    if not pairs:
        return set()
    if proof is None:
        raise StructureError(
            "without example_inputs nothing says which layers read through a ds.nn.Multiplier: give "
            "Structure example_inputs, or use Multiplier.fold_into"
        )
    own = [*pairs]
    for copy in copies:
        twins = [[replace(slot, module=copy.modules[slot.module]) for slot in pair[:2]] for pair in own]
        pairs += [(slot, reader, pair[2]) for (slot, reader), pair in zip(twins, own, strict=True)]
    factors = [(reader, _factors(slot, reader, width)) for slot, reader, width in pairs]
    backup = {tensor: tensor.clone() for pair in pairs for tensor in (pair[0].tensor, pair[1].tensor)}
    before = proof.outputs()
    for reader, factor in factors:
        reader.tensor.mul_(along(factor, reader.dim, reader.tensor.ndim))
    for slot, _, _ in pairs:
        slot.tensor.fill_(1.0)
    try:
        proof.same(
            proof.outputs(), before, "folding a multiplier into the weights that read it changes the output"
        )
    except ProofError as error:
        for tensor, value in backup.items():
            tensor.copy_(value)
        raise StructureError(
            f"{error}: some layers read past the multiplier; let all read through it"
        ) from error
    return {slot.module for slot, _, _ in own if isinstance(slot.module, Multiplier)}


def _factors(slot: Slot, reader: Slot, width: Width) -> Tensor:
    """The multiplier of each entry along the reader's dimension.

    Raises:
        StructureError: which multiplier an entry has cannot be told from the unit that it belongs to.
    """
    if reader.layout == slot.layout:  # position by position, such as of the two directions of a GRU
        return slot.tensor.detach().clone()
    if slot.layout is width.axis:
        return reader.by_entry(slot.tensor.detach(), width.axis).flatten().clone()
    raise StructureError(
        f"{slot} has several multipliers a unit, which cannot be told apart in {reader}: let the layer read "
        "the multiplier directly, or use Multiplier.fold_into"
    )
