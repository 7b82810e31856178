"""Computing a surgery: the new value of every tensor, state and size, before anything is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TypeAlias

from torch import Tensor, nn
from torch.optim import Optimizer

from diffstruct.surgery.change import Change
from diffstruct.surgery.commit import Plan, Resized
from diffstruct.surgery.copies import Copy
from diffstruct.surgery.cut import cut_and_fill
from diffstruct.surgery.outline import Outline, outline

Initialize: TypeAlias = Callable[[Sequence[Change], Mapping[Tensor, Tensor]], None]
"""Initialises new units: gets the changes and, by every tensor that is resized, its new value, in which new
entries are zero, and writes the entries of the new units in place."""


def leave_zero(changes: Sequence[Change], values: Mapping[Tensor, Tensor]) -> None:
    """Leave every entry of the new units at zero: they have no effect on the output."""


def plan(
    changes: Iterable[Change],
    optimizers: Sequence[Optimizer] = (),
    initialize: Initialize = leave_zero,
    copies: Sequence[Copy] = (),
) -> Plan:
    """Compute a surgery without touching anything.

    Args:
        changes: at most one for each width.
        optimizers: those whose state follows the parameters.
        initialize: writes the entries of the new units.
        copies: copies of the model that change alike, as `copy_of` makes them. Surviving entries stay what
            they are in the copy; new ones begin as they do in the model.

    Raises:
        StructureError: a width is changed twice, two slots describe one dimension differently, a tensor is
            not as long as its slot says, or an optimizer cannot follow.
    """
    todo = outline(changes, optimizers)
    result = Plan()
    values: dict[Tensor, Tensor] = {}
    for tensor in todo.tensors:
        values[tensor] = todo.value(tensor, tensor)
        grad = None if tensor.grad is None else todo.gradient(tensor, tensor.grad)
        result.tensors.append(Resized(tensor, values[tensor], grad))
    initialize(todo.changes, values)
    enter_states(result, todo, optimizers, values)
    enter_attributes(result, todo)
    places = {(slot.module, slot.name) for change in todo.changes for slot in change.width.slots}
    places |= {(each.module, each.name) for change in todo.changes for each in change.width.rescaled}
    for copy in copies:
        twins = {}
        for module, name in places:
            if isinstance(tensor := getattr(module, name), Tensor):
                twins[getattr(copy.modules[module], name)] = tensor
        for twin, tensor in twins.items():
            value = cut_and_fill(todo.scaled(tensor, twin), todo.cuts.get(tensor, {}), values[tensor])
            result.tensors.append(Resized(twin, value, None))
        result.attributes += [
            (twin, "size", todo.sizes[axis]) for twin, axis in copy.axes.items() if axis in todo.sizes
        ]
        result.attributes += [
            (copy.modules[module], name, value) for (module, name), value in todo.attributes.items()
        ]
    return result


def enter_states(
    result: Plan, todo: Outline, optimizers: Sequence[Optimizer], values: Mapping[Tensor, Tensor]
) -> None:
    """Enter into a plan what becomes of the optimizers' state of tensors, which will have these values."""
    for tensor in (tensor for tensor in todo.cuts if tensor in values):
        for optimizer in optimizers:
            state = optimizer.state.get(tensor, {})
            for key, old in state.items():
                if isinstance(old, Tensor):
                    new = todo.state(tensor, optimizer, values[tensor], key, old)
                    if new is not old:
                        result.states.append((state, key, new))


def enter_attributes(result: Plan, todo: Outline) -> None:
    """Enter into a plan what becomes of sizes and numbers."""
    result.attributes += [(axis, "size", size) for axis, size in todo.sizes.items()]
    result.attributes += [(*key, value) for key, value in todo.attributes.items()]


def operate(
    changes: Iterable[Change],
    optimizers: Sequence[Optimizer] = (),
    initialize: Initialize = leave_zero,
    copies: Sequence[Copy] = (),
) -> Callable[[], None]:
    """Plan a surgery and carry it out: all of it or, if anything fails, none. See `plan`.

    Returns:
        A function that undoes it, see `Plan.commit`.
    """
    todo = plan(changes, optimizers, initialize, copies)
    with ExitStack() as undo:
        undo.callback(todo.commit())
        for module in {owner for owner, _, _ in todo.attributes}:
            # cuDNN wants its weights in one piece of memory, which new tensors are not.
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()
        return undo.pop_all().close
