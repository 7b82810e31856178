"""How a model calls the children of its containers, seen in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffstruct.couple.last_weights import Walk, walk


@dataclass
class BlockCall:
    """The calls of one module, of which the last is described.

    Args:
        times: how often it was called.
        given: its first input, as it was before the call; None if it is no tensor of numbers.
        returned: its first output.
        walk: from the output back to the input.
    """

    times: int = 0
    given: Tensor | None = None
    returned: Tensor | None = None
    walk: Walk | None = None

    @property
    def keeps_shape(self) -> bool:
        """Whether what is returned has the shape and type of what was given."""
        given, returned = self.given, self.returned
        if given is None or returned is None:
            return False
        return given.shape == returned.shape and given.dtype == returned.dtype


@contextmanager
def watched(modules: Iterable[nn.Module], walks: bool = False) -> Iterator[dict[nn.Module, BlockCall]]:
    """Record the calls of some modules, in the order in which they come.

    Args:
        modules: to watch.
        walks: whether to go back through autograd's graph from each output.
    """
    calls: dict[nn.Module, BlockCall] = {}
    with ExitStack() as stack:
        for module in dict.fromkeys(modules):
            for handle in _hooks(module, calls, walks):
                stack.callback(handle.remove)
        yield calls


def _hooks(module: nn.Module, calls: dict[nn.Module, BlockCall], walks: bool) -> list[Any]:
    begins: list[Any] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = calls.setdefault(module, BlockCall())
        call.times += 1
        call.given, begin = None, None
        key, tensor = _first((*enumerate(args), *kwargs.items()))
        if tensor is not None:
            call.given = tensor.detach().clone()
            if walks and tensor.grad_fn is None:
                tensor = (tensor if tensor.requires_grad else tensor.detach().requires_grad_()).clone()
                if isinstance(key, int):
                    args = (*args[:key], tensor, *args[key + 1 :])
                else:
                    kwargs = {**kwargs, key: tensor}
            begin = tensor.grad_fn
        begins.append(begin)
        return args, kwargs

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        call, begin = calls[module], begins.pop()
        _, tensor = _first(enumerate(result if isinstance(result, (tuple, list)) else (result,)))
        call.returned = None if tensor is None else tensor.detach().clone()
        if walks and tensor is not None:
            own = {id(parameter): name for name, parameter in module.named_parameters()}
            call.walk = walk(tensor, begin, own)

    enter_hook: Callable[..., Any] = module.register_forward_pre_hook
    return [
        enter_hook(enter, with_kwargs=True),
        module.register_forward_hook(leave, with_kwargs=True),
    ]


def _first(values: Any) -> tuple[Any, Tensor | None]:
    """The first tensor of numbers among some values, and its key."""
    for key, value in values:
        if isinstance(value, Tensor) and value.is_floating_point():
            return key, value
    return None, None


@contextmanager
def all_trained(modules: list[nn.Module]) -> Iterator[None]:
    """Let autograd see all parameters, frozen ones too."""
    frozen = [p for module in modules for p in module.parameters() if not p.requires_grad]
    frozen = [p for p in frozen if p.is_floating_point()]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
