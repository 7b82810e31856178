"""Carrying decisions out: first the widths, then the blocks that come and go. All or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableSequence, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from diffstruct.distributed import Processes
from diffstruct.rule import Decision
from diffstruct.surgery import Birth, Change, Copy, Initialize, change_blocks, operate, operate_in_turn
from diffstruct.surgery.planning import leave_zero
from diffstruct.width import Depth, Followed, NewBlock, Width, follow_blocks
from diffstruct.width.depth import children_of

T = TypeVar("T")


def operate_on(
    model: nn.Module,
    changes: Mapping[str, Change],
    births: Mapping[str, Sequence[Birth]],
    optimizers: Sequence[Optimizer],
    initialize: Initialize = leave_zero,
    copies: MutableSequence[Copy] | None = None,
    processes: Processes | None = None,
) -> Callable[[], None]:
    """Carry changes of widths and of depths out.

    Args:
        model: the model.
        changes: by name.
        births: the blocks that enter, by the names of the depths.
        optimizers: that train the model.
        initialize: writes the entries of new units.
        copies: of the model, which change alike.
        processes: that train the model, each of which may have a part of it; None: this one alone.

    Returns:
        A function that undoes it.
    """
    with ExitStack() as undo:
        plain = [change for change in changes.values() if not isinstance(change.width, Depth)]
        if processes is None or processes.sharding is None:
            undo.callback(operate(plain, optimizers, initialize, copies or ()))
        elif plain:
            undo.callback(operate_in_turn(plain, processes, optimizers, initialize))
        for name, change in changes.items():
            if isinstance(change.width, Depth):
                undo.callback(change_blocks(model, change, births.get(name, ()), optimizers, copies))
        _invalidate_compiled_code(model, touched_by(changes))
        return undo.pop_all().close


def _invalidate_compiled_code(model: nn.Module, tensors: Sequence[Tensor]) -> None:
    """Let compiled code look at the sizes of these tensors again.

    `torch.compile` may check the parameters of a module only if their dictionary has been written to since
    the last call. Tensors that change in place do not count, and code for the former sizes would run.
    """
    touched = {id(tensor) for tensor in tensors}
    for module in model.modules():
        dictionaries: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for held in dictionaries:
            for name, tensor in held.items():
                if id(tensor) in touched:
                    # Writing the same object again would not count. Nothing can fail between the two.
                    held[name], held[name] = None, tensor


def touched_by(changes: Mapping[str, Change]) -> list[Tensor]:
    """The tensors that surgery of some widths reads and writes."""
    found = [slot.tensor for change in changes.values() for slot in change.width.slots]
    every = (each for change in changes.values() for each in change.width.rescaled)
    values = [getattr(each.module, each.name) for each in every]
    return [*dict.fromkeys([*found, *(value for value in values if isinstance(value, Tensor))])]


def told(
    decisions: Mapping[str, Decision], births: Mapping[str, Sequence[Birth]], widths: Mapping[str, Width]
) -> object:
    """What several processes must have decided alike: sizes, units that stay, and where blocks come."""
    places = []
    for name, each in births.items():
        depth = widths[name]
        assert isinstance(depth, Depth)
        children = [*children_of(depth.stack.container), None]
        places += [(name, children.index(birth.before)) for birth in each]
    return [(name, widths[name].size, each.keep, each.add) for name, each in decisions.items()], places


def block_watch(
    model: nn.Module,
    widths: Mapping[str, Width],
    changes: Mapping[str, Change],
    births: Mapping[str, Sequence[Birth]],
) -> Callable[[], dict[str, Followed]]:
    """To be called before changes that let blocks come or go are carried out.

    Args:
        model: the model.
        widths: of it, depths among them, by name.
        changes: that will be carried out.
        births: the blocks that will enter.

    Returns:
        A function to be called after that: the widths that there are then, by the names that they have then.
    """
    if not any(isinstance(change.width, Depth) for change in changes.values()):
        return lambda: {}
    before = {module: name for name, module in model.named_modules()}
    new = []
    for name, each in births.items():
        depth = widths[name]
        assert isinstance(depth, Depth)
        new += [NewBlock(birth.twins(), birth.memo, depth.stack.shared) for birth in each]

    def followed() -> dict[str, Followed]:
        after = {module: name for name, module in model.named_modules()}
        return follow_blocks(widths, {*before} - {*after}, new, before, after)

    return followed


def carried(
    known: Mapping[str, T], followed: Mapping[str, Followed], new: Callable[[int], T]
) -> dict[str, T]:
    """What is known of each width, by the names that they have now.

    Args:
        known: by the names that they had.
        followed: the widths that there are now.
        new: what is known of a new width of so many units.
    """
    return {name: new(each.width.size) if each.new else known[each.name] for name, each in followed.items()}
