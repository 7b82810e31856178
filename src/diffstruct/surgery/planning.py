"""Computing a surgery: the new value of every tensor, state and size, before anything is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.optim import Optimizer

from diffstruct.surgery.change import Change
from diffstruct.surgery.commit import Plan, Resized
from diffstruct.surgery.copies import Copy
from diffstruct.surgery.cut import Cuts, cut_along, cut_and_fill, cuts_of
from diffstruct.surgery.optimizer_state import check_optimizer, check_state, initial_value, state_dims
from diffstruct.width.follows import Rescaled
from diffstruct.width.layout import Axis

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
    changes = [*changes]
    for optimizer in optimizers:
        check_optimizer(optimizer)
    cuts = cuts_of(changes)
    result = Plan()
    values: dict[Tensor, Tensor] = {}
    sizes = {change.width.axis: change.new_size for change in changes}
    factors, numbers = _rescaled(changes, sizes)
    for tensor in (*cuts, *(other for other in factors if other not in cuts)):
        own = cuts.get(tensor, {})
        values[tensor] = cut_along(_scaled(tensor, factors.get(tensor, ()), sizes), own)
        grad = None if tensor.grad is None else cut_along(tensor.grad, own)
        result.tensors.append(Resized(tensor, values[tensor], grad))
    initialize(changes, values)
    for tensor, own in cuts.items():
        for optimizer in optimizers:
            result.states += _states(optimizer, tensor, own, values[tensor])
    attributes = {**_attributes(changes, sizes), **numbers}
    result.attributes += [(axis, "size", size) for axis, size in sizes.items()]
    result.attributes += [(*key, value) for key, value in attributes.items()]
    places = {(slot.module, slot.name) for change in changes for slot in change.width.slots}
    places |= {(each.module, each.name) for change in changes for each in change.width.rescaled}
    for copy in copies:
        twins = {}
        for module, name in places:
            if isinstance(tensor := getattr(module, name), Tensor):
                twins[getattr(copy.modules[module], name)] = tensor
        for twin, tensor in twins.items():
            scaled = _scaled(twin, factors.get(tensor, ()), sizes)
            value = cut_and_fill(scaled, cuts.get(tensor, {}), values[tensor])
            result.tensors.append(Resized(twin, value, None))
        result.attributes += [
            (twin, "size", sizes[axis]) for twin, axis in copy.axes.items() if axis in sizes
        ]
        result.attributes += [
            (copy.modules[module], name, value) for (module, name), value in attributes.items()
        ]
    return result


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


def _attributes(changes: Sequence[Change], sizes: Mapping[Axis, int]) -> dict[tuple[nn.Module, str], Any]:
    """The new value of every attribute that holds a size; several changes may concern one tuple."""
    values: dict[tuple[nn.Module, str], Any] = {}
    for change in changes:
        for attribute in change.width.attributes:
            key = attribute.module, attribute.name
            now = values[key] if key in values else getattr(*key)
            values[key] = attribute.changed(now, sizes)
    return values


def _rescaled(
    changes: Sequence[Change], sizes: Mapping[Axis, int]
) -> tuple[dict[Tensor, list[Rescaled]], dict[tuple[nn.Module, str], float]]:
    """What happens to tensors that depend on a size, and the new value of each number that does."""
    tensors: dict[Tensor, list[Rescaled]] = {}
    numbers: dict[tuple[nn.Module, str], float] = {}
    # Several changes may concern one layout, which changes once.
    for each in dict.fromkeys(each for change in changes for each in change.width.rescaled):
        now = getattr(each.module, each.name)
        if isinstance(now, Tensor):
            tensors.setdefault(now, []).append(each)
        else:
            numbers[each.module, each.name] = each.number(sizes)
    return tensors, numbers


def _scaled(tensor: Tensor, rescaled: Iterable[Rescaled], sizes: Mapping[Axis, int]) -> Tensor:
    tensor = tensor.detach()
    for each in rescaled:
        tensor = each.apply(tensor, sizes)
    return tensor


def _states(
    optimizer: Optimizer, tensor: Tensor, cuts: Cuts, value: Tensor
) -> Iterator[tuple[dict[Any, Any], Any, Tensor]]:
    """The new value of each entry of the optimizer's state for `tensor`, which will be `value`."""
    check_state(optimizer, tensor)
    state = optimizer.state.get(tensor, {})
    for key, old in state.items():
        if isinstance(old, Tensor):
            dims = state_dims(optimizer, key, old, tensor)
            own = {dim: cut for dim, cut in cuts.items() if dims[dim]}
            if own:
                yield state, key, cut_and_fill(old, own, initial_value(optimizer, key, tensor, value))
