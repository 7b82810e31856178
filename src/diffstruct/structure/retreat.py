"""Going back to where a step began, if anything fails in it: all or nothing.

Surgery undoes itself. All else that a step changes is remembered before: what criterion, rule and structure
know, as Python objects whose contents are put back into the same objects; and the weights that a criterion
works on, as copies, for as long as the decision takes.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import Enum
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from diffstruct.couple import Proof
from diffstruct.couple.found import Refusal
from diffstruct.criteria.outputs import Call
from diffstruct.distributed import Processes, local
from diffstruct.history import History
from diffstruct.rule import Rule
from diffstruct.structure.finite import Guard
from diffstruct.surgery import Copy
from diffstruct.width import Axis, Width

Back = Callable[[], object]
Contents = tuple[Back | None, Iterable[object]]
"""What puts the contents of an object back, and what there is to remember in it."""


@contextmanager
def all_or_nothing(*roots: object) -> Iterator[ExitStack]:
    """Do something as a whole or, if anything fails, not at all, where signals are `held`.

    Args:
        roots: what is remembered, and put back.

    Returns:
        To which is added what else undoes it.
    """
    with ExitStack() as undo:
        undo.callback(remember(*roots, *_generators()))
        yield undo
        undo.pop_all()


def _generators() -> list[torch.Generator]:
    """Those that a model may draw from, in a run of which something fails where they are put back."""
    return [torch.default_generator, *torch.cuda.default_generators]  # of GPUs, once one is used


def remember(*roots: object) -> Back:
    """Remember what some objects hold, and what these hold in turn; models and optimizers are left alone.

    Returns:
        A function that puts it back into the same objects.
    """
    seen: dict[int, object] = {}  # the objects, too: an id is that of an object while this is there
    backs: list[Back] = []
    tensors: list[Tensor] = []
    waiting = [*roots]
    while waiting:
        each = waiting.pop()
        kind: Any = type(each)
        contents = _contents_of(kind)
        if contents is None or id(each) in seen:
            continue
        seen[id(each)] = each
        if isinstance(each, Tensor):
            tensors.append(each)
            continue
        back, inside = contents(each)
        if back is not None:
            backs.append(back)
        waiting += inside
    return _all([*backs, remember_values(tensors)])


@cache
def _contents_of(kind: type) -> Callable[[Any], Contents] | None:
    """How the contents of objects of a type are remembered; None where they are not."""
    if issubclass(kind, _LEFT_ALONE):
        return None
    special = (contents for base, contents in _SPECIAL.items() if issubclass(kind, base))
    return next(special, _of_object if hasattr(kind, "__dict__") else None)


def _of_object(each: Any) -> Contents:
    own = getattr(each, "__dict__", None)
    return (None, ()) if own is None else (partial(_refill, own, dict(own)), own.values())


def _of_handle(each: RemovableHandle) -> Contents:
    """The hooks of what has this one, and what is known of them beside it."""
    known = [each.hooks_dict_ref(), *(ref() for ref in each.extra_dict_ref)]
    return _all([partial(_refill, hooks, dict(hooks)) for hooks in known if hooks is not None]), ()


_LEFT_ALONE: tuple[type, ...] = (
    *(nn.Module, Optimizer, Width, Axis, Copy, Proof, Call, Guard, Rule, Refusal, Enum, type, Processes),
    *(types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.NoneType),
    *(str, bytes, int, float, complex),
)
"""What a decision does not change, or surgery undoes."""

_SPECIAL: dict[type, Callable[[Any], Contents]] = {
    Tensor: lambda each: (None, ()),
    dict: lambda each: (partial(_refill, each, dict(each)), each.values()),
    set: lambda each: (partial(_refill, each, set(each)), each),
    list: lambda each: (_back_to(each), each),
    tuple: lambda each: (None, each),
    frozenset: lambda each: (None, each),
    np.ndarray: lambda each: (partial(np.copyto, each, each.copy()) if each.flags.writeable else None, ()),
    np.random.Generator: lambda each: (_of_generator(each), ()),
    torch.Generator: lambda each: (partial(each.set_state, each.get_state()), ()),
    types.MethodType: lambda each: (None, [each.__self__]),
    partial: lambda each: (None, [each.func, each.args, each.keywords]),
    RemovableHandle: _of_handle,
    History: lambda each: (each.mark(), ()),
}


def _of_generator(each: np.random.Generator) -> Back:
    return partial(setattr, each.bit_generator, "state", each.bit_generator.state)


def remember_values(tensors: Iterable[Tensor]) -> Back:
    """Remember the values of tensors; returns a function that puts them back into the same memory."""
    values = [(tensor, local(tensor).clone()) for tensor in {id(each): each for each in tensors}.values()]

    @torch.no_grad()
    def back() -> None:
        for tensor, value in values:
            local(tensor).copy_(value)

    return back


def at_risk(model: nn.Module, widths: Iterable[Width], copies: Iterable[Copy] = ()) -> Iterator[Tensor]:
    """The tensors that a criterion works on: those that widths lie in, and all buffers.

    Args:
        model: the model.
        widths: of it.
        copies: of the model; if there are any, their tensors, in the place of the model's.
    """
    places = [(slot.module, slot.name) for width in widths for slot in width.slots]
    places += [(each.module, each.name) for width in widths for each in width.rescaled]
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
            lists = [each for each in group.values() if isinstance(each, list)]
            backs += [partial(_refill, group, dict(group)), *map(_back_to, lists)]
        states = [optimizer.state, *(each for each in optimizer.state.values() if isinstance(each, dict))]
        backs += [partial(_refill, state, dict(state)) for state in states]
        backs.append(_back_to(optimizer.param_groups))
    return _all(backs)


def _refill(holder: Any, contents: Any) -> None:
    holder.clear()
    holder.update(contents)


def _all(backs: Iterable[Back]) -> Back:
    backs = [*backs]
    return lambda: [each() for each in backs]


def _back_to(each: list[Any]) -> Back:
    return partial(each.__setitem__, slice(None), [*each])
