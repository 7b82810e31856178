"""Putting computed values in place: all of them or, if anything fails, none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from diffstruct.width.layout import Axis


@cache
def _nothing(dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty tensor; the same one each time, so that undoing a surgery allocates nothing."""
    return torch.empty(0, dtype=dtype, device=device)


@dataclass(frozen=True)
class Resized:
    """A tensor of the model, its new value, and that of its gradient."""

    tensor: Tensor
    value: Tensor
    grad: Tensor | None

    def inverse(self) -> Resized:
        """What undoes `swap`, if made before it."""
        return Resized(self.tensor, self.tensor.data, self.tensor.grad)

    def swap(self) -> None:
        """Put the new value and gradient in place; the tensor stays the same object."""
        self.tensor.grad = None
        # Autograd's accumulator remembers the shape for as long as any graph (a loss that the caller still
        # holds) is alive, and would refuse the next backward. Passing through another dtype makes it forget.
        other = torch.float32 if self.tensor.dtype != torch.float32 else torch.float64
        self.tensor.data = _nothing(other, self.tensor.device)
        self.tensor.data = self.value
        self.tensor.grad = self.grad
        # Autograd then refuses to go back through a graph that was made with the former value.
        torch.autograd.graph.increment_version(self.tensor)


@dataclass
class Plan:
    """Everything that a surgery will do, computed and checked; nothing has changed yet.

    Args:
        tensors: new values of parameters and buffers.
        states: new values of optimizer state: the state of a parameter, its key, the value.
        attributes: new sizes: a module or an axis, the name of its attribute, the value.
    """

    tensors: list[Resized] = field(default_factory=list)
    states: list[tuple[dict[Any, Any], Any, Tensor]] = field(default_factory=list)
    attributes: list[tuple[nn.Module | Axis, str, Any]] = field(default_factory=list)

    def commit(self) -> Callable[[], None]:
        """Put everything in place, or, if anything fails, leave all as it was.

        Returns:
            A function that undoes it: it puts the same memory as before back.
        """
        undo: list[Callable[[], object]] = []

        def back() -> None:
            for step in reversed(undo):
                step()

        try:
            for resized in self.tensors:
                undo.append(resized.inverse().swap)
                resized.swap()
            for state, key, value in self.states:
                undo.append(partial(state.__setitem__, key, state[key]))
                state[key] = value
            for owner, name, size in self.attributes:
                undo.append(partial(setattr, owner, name, getattr(owner, name)))
                setattr(owner, name, size)
            return back
        except BaseException as error:
            for step in reversed(undo):
                try:
                    step()
                except Exception as failure:  # what could not be set cannot be set back: the rest can
                    error.add_note(f"while undoing the surgery: {failure!r}")
            raise
