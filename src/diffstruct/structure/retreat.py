"""Going back to where a step began, if anything fails in it: all or nothing.

Surgery undoes itself. All else that a step changes is remembered before: what criterion, rule and structure
know, as Python objects whose contents are put back into the same objects; and the weights that a criterion
works on, as copies, for as long as the decision takes.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from diffstruct.couple import Proof
from diffstruct.criteria.outputs import Call
from diffstruct.interrupts import held
from diffstruct.structure.history import History
from diffstruct.surgery import Copy
from diffstruct.width import Axis, Width

Back = Callable[[], object]

_LEFT_ALONE = (
    *(nn.Module, Optimizer, Width, Axis, Copy, Proof, Call, type, types.ModuleType, types.FunctionType),
    *(str, bytes, int, float, complex, bool, type(None), torch.device, torch.dtype),
)
"""What a decision does not change, or surgery undoes."""


@contextmanager
def all_or_nothing(*roots: object) -> Iterator[ExitStack]:
    """Do something as a whole or, if anything fails, not at all; signals wait until it is over.

    Args:
        roots: what is remembered, and put back.

    Returns:
        To which is added what else undoes it.
    """
    with held(), ExitStack() as undo:
        undo.callback(remember(*roots))
        yield undo
        undo.pop_all()


def remember(*roots: object) -> Back:
    """Remember what some objects hold, and what these hold in turn; models and optimizers are left alone.

    Returns:
        A function that puts it back into the same objects.
    """
    found: dict[int, Back] = {}
    kept: list[object] = []  # an id is that of an object for as long as the object is there
    waiting = [*roots]
    while waiting:
        each = waiting.pop()
        if isinstance(each, _LEFT_ALONE) or id(each) in found:
            continue
        back, inside = _contents(each)
        found[id(each)] = back
        kept.append(each)
        waiting += inside
    backs = [*found.values()]

    def back() -> None:
        for each in backs:
            each()
        del kept[:]

    return back


def _contents(each: Any) -> tuple[Back, Iterable[object]]:
    """What puts the contents of an object back, and what there is to remember in it."""
    if isinstance(each, types.MethodType):
        return _nothing, [each.__self__]
    if isinstance(each, partial):
        return _nothing, [each.func, each.args, each.keywords]
    if isinstance(each, (tuple, frozenset)):
        return _nothing, each
    if isinstance(each, RemovableHandle):
        hooks = [each.hooks_dict_ref(), *(ref() for ref in each.extra_dict_ref)]
        return _all([_contents(known)[0] for known in hooks if known is not None]), ()
    if isinstance(each, dict):
        return partial(_refill, each, dict(each)), each.values()
    if isinstance(each, set):
        return partial(_refill, each, set(each)), each
    if isinstance(each, list):
        return partial(each.__setitem__, slice(None), [*each]), each
    if isinstance(each, np.ndarray):
        return partial(np.copyto, each, each.copy()) if each.flags.writeable else _nothing, ()
    if isinstance(each, Tensor):
        return remember_values([each]), ()
    if isinstance(each, np.random.Generator):
        return partial(setattr, each.bit_generator, "state", each.bit_generator.state), ()
    if isinstance(each, torch.Generator):
        return partial(each.set_state, each.get_state()), ()
    if isinstance(each, History):
        return each.mark(), ()
    if hasattr(each, "__dict__"):
        return partial(_refill, vars(each), dict(vars(each))), vars(each).values()
    return _nothing, ()


def remember_values(tensors: Iterable[Tensor]) -> Back:
    """Remember the values of tensors; returns a function that puts them back into the same memory."""
    values = [(tensor, tensor.detach().clone()) for tensor in {id(each): each for each in tensors}.values()]

    @torch.no_grad()
    def back() -> None:
        for tensor, value in values:
            tensor.copy_(value)

    return back


def at_risk(model: nn.Module, widths: Iterable[Width], copies: Iterable[Copy] = ()) -> Iterator[Tensor]:
    """The tensors that a criterion works on: those that widths lie in, and all buffers.

    Args:
        model: the model.
        widths: of it.
        copies: of the model; if there are any, their tensors, in the place of the model's.
    """
    places = [(each.module, each.name) for width in widths for each in (*width.slots, *width.rescaled)]
    places += [(module, name) for module in model.modules() for name in module._buffers]
    twins: list[Mapping[nn.Module, nn.Module]] = [copy.modules for copy in copies]
    for twin_of in twins or [{}]:
        for module, name in dict.fromkeys(places):
            tensor = getattr(twin_of.get(module, module), name, None)
            if isinstance(tensor, Tensor):
                yield tensor


def remember_modules(models: Iterable[nn.Module], optimizers: Iterable[Optimizer]) -> Back:
    """Remember of which modules, parameters and settings models consist, and what optimizers hold."""
    backs: list[Back] = []
    for module in {module: None for model in models for module in model.modules()}:
        own = vars(module)
        backs += [partial(setattr, module, "__class__", type(module)), partial(_refill, own, dict(own))]
        backs += [partial(_refill, each, each.copy()) for each in own.values() if isinstance(each, dict)]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            backs += [partial(_refill, group, dict(group)), _contents(group["params"])[0]]
            if "param_names" in group:
                backs.append(_contents(group["param_names"])[0])
        states = [optimizer.state, *(each for each in optimizer.state.values() if isinstance(each, dict))]
        backs += [partial(_refill, state, dict(state)) for state in states]
        backs.append(_contents(optimizer.param_groups)[0])
    return _all(backs)


def _refill(holder: Any, contents: Any) -> None:
    holder.clear()
    holder.update(contents)


def _all(backs: Iterable[Back]) -> Back:
    backs = [*backs]
    return lambda: [each() for each in backs]


def _nothing() -> None:
    pass
