"""What surgery knows of optimizers: whether their state can be cut, how, and what new entries begin with.

Almost every optimizer keeps state that is shaped like the parameter and begins at zero. The exceptions
are listed here; other optimizers are registered with `register_initial_state`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

from diffstruct.errors import StructureError

Begin: TypeAlias = Callable[[Mapping[str, Any], Tensor], float | Tensor]
"""From a parameter's group and its own new value: what new entries of its state begin with."""

_CANNOT = {
    torch.optim.LBFGS: "its curvature history is one flat vector over all parameters; use another optimizer, "
    "such as torch.optim.Adam",
    torch.optim.SparseAdam: "it takes sparse gradients only, and the layers of a learned width have dense "
    "ones; use torch.optim.Adam",
}

# Adafactor (Shazeer and Stern, 2018) keeps row and column means: the dimension named here is reduced to 1.
_REDUCED = {(torch.optim.Adafactor, "row_var"): -1, (torch.optim.Adafactor, "col_var"): -2}

_BEGINS_AT: dict[tuple[type[Optimizer], str], Begin] = {}


def register_initial_state(kind: type[Optimizer], key: str, begin: Begin) -> None:
    """Say what an optimizer begins an entry of its state with, where that is not zero.

    An optimizer needs this only if its state is shaped like the parameter and begins elsewhere than at
    zero: state that begins at zero, and numbers such as a step count, are followed without it. A subclass
    inherits what is registered for its parents, and may register its own.

    Args:
        kind: the class of the optimizer.
        key: the entry's name in `optimizer.state[parameter]`.
        begin: gets the parameter group and the parameter's new value, new entries included; returns a
            number, or a tensor shaped like the parameter, for the new entries. Those that survive stay.

    Example:
        An Adam whose second moment begins at the learning rate:

        >>> import torch
        >>> import diffstruct as ds
        >>> class WarmAdam(torch.optim.Adam):
        ...     pass
        >>> ds.register_initial_state(WarmAdam, "exp_avg_sq", lambda group, value: float(group["lr"]))
    """
    _BEGINS_AT[kind, key] = begin


register_initial_state(torch.optim.Adagrad, "sum", lambda group, _: float(group["initial_accumulator_value"]))
register_initial_state(torch.optim.Rprop, "step_size", lambda group, _: float(group["lr"]))
# The average of a parameter follows it from its first step on.
register_initial_state(torch.optim.ASGD, "ax", lambda _, value: value)


def check_optimizer(optimizer: Optimizer) -> None:
    """Refuse an optimizer whose state cannot follow a change of structure.

    Raises:
        StructureError: its state cannot follow; the message names an optimizer whose state can.
    """
    for kind, why in _CANNOT.items():
        if isinstance(optimizer, kind):
            raise StructureError(f"{type(optimizer).__name__} cannot follow changes of structure: {why}")


def check_state(optimizer: Optimizer, parameter: Tensor) -> None:
    """Refuse state of `parameter` that surgery could not cut.

    Raises:
        StructureError: names the entry and its shape.
    """
    for key, value in optimizer.state.get(parameter, {}).items():
        if isinstance(value, Tensor):
            state_dims(optimizer, key, value, parameter)
        elif isinstance(value, (list, tuple, dict)):
            raise StructureError(
                f"{type(optimizer).__name__} keeps state {key!r} in a {type(value).__name__}, which surgery "
                "cannot follow: use another optimizer"
            )


def initial_value(optimizer: Optimizer, key: str, parameter: Tensor, value: Tensor) -> float | Tensor:
    """What `optimizer` begins new entries of state `key` with: a number, or a tensor shaped like `value`.

    Args:
        optimizer: the optimizer.
        key: the name of the state.
        parameter: whose state it is.
        value: what the parameter will be, with its new entries.
    """
    for kind in type(optimizer).__mro__:
        begin = _BEGINS_AT.get((kind, key))
        if begin is not None:
            groups = optimizer.param_groups
            group = next(g for g in groups if any(p is parameter for p in g["params"]))
            return begin(group, value)
    return 0.0


def begin_state(optimizer: Optimizer, group: Mapping[str, Any], parameter: Tensor, sibling: Tensor) -> None:
    """Give a new parameter the state without which the optimizer could not step.

    Almost all give state to a parameter at its first step, and need nothing. Adagrad gives it when it is
    made; the fused kernel of SGD wants either all parameters of a group to have a momentum, or none.

    Args:
        optimizer: the optimizer.
        group: that the parameter has joined.
        parameter: the parameter.
        sibling: the parameter that it was copied from.
    """
    value = parameter.detach()
    if isinstance(optimizer, torch.optim.Adagrad):
        start = group["initial_accumulator_value"]
        step = torch.zeros((), dtype=torch.float32, device=value.device if group["fused"] else None)
        optimizer.state[parameter] = {"step": step, "sum": torch.full_like(value, start)}
    known = optimizer.state.get(sibling, {}).get("momentum_buffer")
    if isinstance(optimizer, torch.optim.SGD) and group["fused"] and known is not None:
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(value)


def state_dims(optimizer: Optimizer, key: str, value: Tensor, parameter: Tensor) -> list[bool]:
    """For each dimension of `parameter`, whether entry `key` of its state, `value`, has it too.

    Raises:
        StructureError: the shapes do not match, so that the entry cannot be cut safely.
    """
    if value.ndim == 0:
        return [False] * parameter.ndim
    dims = [True] * parameter.ndim
    expected = [*parameter.shape]
    for (kind, name), dim in _REDUCED.items():
        if isinstance(optimizer, kind) and name == key:
            dims[dim], expected[dim] = False, 1
    if [*value.shape] != expected:
        raise StructureError(
            f"{type(optimizer).__name__} keeps state {key!r} of shape {[*value.shape]} for a parameter of "
            f"shape {[*parameter.shape]}, which surgery cannot follow: use another optimizer or, if this "
            "state was loaded, load it after those of the model and the structure"
        )
    return dims
