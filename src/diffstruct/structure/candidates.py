"""Which of the widths that a model has can be learned in a run: the others are refused, with a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from diffstruct.couple import EXCLUDED, FoundWidths, depths_of, find_widths
from diffstruct.criteria import Criterion, Training
from diffstruct.distributed import is_sharded, plain, unlike_a_block
from diffstruct.errors import ConfigurationError, StructureError
from diffstruct.nn import Multiplier, Residual
from diffstruct.nn.recurrent import Recurrent
from diffstruct.surgery import check_state
from diffstruct.width import READERS, Depth, Role, Width, outside


def widths_to_learn(
    model: nn.Module,
    example_inputs: Sequence[Any] | Mapping[str, Any] | None,
    found: FoundWidths | None,
    include: Sequence[str],
    exclude: Sequence[str],
    tie: Sequence[str],
    depth: Sequence[str] = (),
) -> FoundWidths:
    """The widths of `model`, found now or handed over, and its depths; a record of its own.

    Raises:
        ConfigurationError: the arguments contradict each other.
        StructureError: no width is left, or what was found is of another model.
    """
    if found is None:
        found = find_widths(model, example_inputs, include=include, exclude=exclude, tie=tie)
    elif example_inputs is not None or (*include, *exclude, *tie) != ("*",):
        raise ConfigurationError(
            "give example_inputs, include, exclude and tie to find_widths, whose result `widths` is, or "
            "leave `widths` out"
        )
    if found.model is not model:
        raise StructureError(
            f"the widths are those of another {type(found.model).__name__}: find them in the model that is "
            "trained"
        )
    modules = {*model.modules()}
    for width in found.widths.values():
        width.check_lengths()
        lost = {place.module for place in width.slots} | {place.module for place in width.attributes}
        for module in lost - modules:
            raise StructureError(
                f"width {width.name!r} lies in a {type(module).__name__} that the model has no more: find "
                "the widths again"
            )
    found = replace(found, widths=dict(found.widths), refused=[*found.refused])
    _add_depths(found, depth)
    _need_widths(found)
    return found


def _add_depths(found: FoundWidths, wanted: Sequence[str]) -> None:
    """Put the depths that are wanted, by patterns of names, and those of `ds.nn.Residual`, before the widths.

    Raises:
        ConfigurationError: a pattern matches no container of blocks, or there are no example inputs.
        StructureError: no block of the containers that are meant can come or go.
    """
    declared = [name for name, module in found.model.named_modules() if isinstance(module, Residual) and name]
    patterns = [*([wanted] if isinstance(wanted, str) else wanted), *declared]
    if not patterns:
        return
    if found.proof is None:
        raise ConfigurationError("depths are found by running the model: give example_inputs")
    with plain(found.model):
        depths = depths_of(found.proof, patterns)
    for depth in depths.depths.values():
        _check_shards(depth)
    found.refused += [each for each in depths.refused if each.reason != EXCLUDED]
    if not depths.depths:
        raise StructureError(f"none of the blocks of {patterns} can come or go:\n{depths.explain()}")
    for each in depths.depths.values():
        each.stack.shared |= outside(found.widths.values(), each.blocks)
    found.widths = {**depths.depths, **found.widths}


def _check_shards(depth: Depth) -> None:
    """Refuse blocks of a sharded model that are not sharded one by one.

    Raises:
        StructureError: there is one.
    """
    for block in depth.blocks:
        why = unlike_a_block(block) if any(map(is_sharded, block.parameters())) else None
        if why is not None:
            raise StructureError(
                f"the blocks of depth {depth.name!r} cannot come and go in a model that fully_shard has "
                f"sharded: {why}; or leave depth out, or use DistributedDataParallel"
            )


def learnable(found: FoundWidths, criterion: Criterion, training: Training) -> None:
    """Refuse the widths that the criterion cannot judge, or whose new units the optimizers would not train.

    Raises:
        StructureError: none is left, the optimizers train another model, or the state of one cannot follow.
        ConfigurationError: the criterion does not judge blocks, and there is a depth.
    """
    held = {id(p) for each in training.optimizers for group in each.param_groups for p in group["params"]}
    if not any(id(parameter) in held for parameter in found.model.parameters()):
        raise StructureError(
            f"no optimizer holds any parameter of this {type(found.model).__name__}: pass the optimizer that "
            "was made from model.parameters()"
        )
    for name, width in [*found.widths.items()]:
        if isinstance(width, Depth) and not criterion.learns_depths:
            why = f"{type(criterion).__name__} does not judge blocks"
            if not isinstance(width.stack.container, Residual):
                raise ConfigurationError(f"{why}: leave depth out, or use TaylorImportance")
            found.refuse(name, why)
            continue
        reason = untrained(width, held) or criterion.refusal(width, training)
        if reason is not None:
            found.refuse(name, reason)
            continue
        _check_states(width, training.optimizers)
    _need_widths(found)


def shardable(
    model: nn.Module,
    criterion: Criterion,
) -> None:
    """Refuse what cannot be learned of a model that is sharded over processes; arguments as of `Structure`.

    Raises:
        StructureError: says what, and what can be done instead.
    """
    why = None
    if not getattr(criterion, "knows_shards", False):
        why = f"{type(criterion).__name__} judges by whole weights: use TaylorImportance"
    elif any(isinstance(module, (Recurrent, Multiplier)) for module in model.modules()):
        why = "layers of ds.nn cannot be learned, since finish would replace them: use those of torch.nn"
    if why is not None:
        raise StructureError(
            f"in a model that fully_shard has sharded, {why}; or use DistributedDataParallel"
        )


def untrained(width: Width, held: set[int]) -> str | None:
    """Why new units of a width would not be trained; None if they would.

    Args:
        width: the width.
        held: ids of the parameters that the optimizers hold.
    """
    for roles, what in () if isinstance(width, Depth) else (((Role.INCOMING,), "feeds"), (READERS, "reads")):
        parameters = [slot for slot in width.having(*roles) if slot.name in slot.module._parameters]
        weights = [slot for slot in parameters if slot.tensor.ndim > 1] or parameters
        if not any(slot.tensor.requires_grad for slot in weights):
            return f"no weight that {what} it is trained, so that new units would stay as they are drawn"
    for slot in width.slots:
        if getattr(slot.module, "sparse", False):
            return f"lives in {slot}, whose gradients are sparse and cannot be cut: make it with sparse=False"
        if slot.tensor.requires_grad and id(slot.tensor) not in held:
            return f"lives in {slot}, which none of the optimizers holds, so that it would not be trained"
    return None


def _check_states(width: Width, optimizers: Sequence[Optimizer]) -> None:
    for slot in width.slots:
        for optimizer in optimizers:
            check_state(optimizer, slot.tensor)


def _need_widths(found: FoundWidths) -> None:
    if not found.widths:
        raise StructureError(
            f"{type(found.model).__name__} has no width that could be learned"
            + (
                f":\n{found.explain()}"
                if found.refused
                else ": it has no layers, or include and exclude leave none"
            )
        )
