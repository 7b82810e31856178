"""Acting before each step of some optimizers, also after a deep copy."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


class ActsBeforeSteps(ABC):
    """Something whose `before_step` the optimizers call, from `_attach_to` until `_let_go`.

    Optimizers do not keep it alive. They drop their hooks when they are copied, so a copy registers its own.
    """

    _hooked: Sequence[Optimizer] = ()
    _handles: Sequence[RemovableHandle] = ()

    @abstractmethod
    def before_step(self, optimizer: Optimizer, closure: bool = False) -> None:
        """Act, right before a step of `optimizer`, which is given a closure or not."""

    @abstractmethod
    def guarded(self, optimizer: Optimizer, closure: Callable[[], Any]) -> Callable[[], Any]:
        """What a step of `optimizer` is given in the place of a closure."""

    def _attach_to(self, optimizers: Sequence[Optimizer]) -> None:
        mine = weakref.ref(self)

        def hook(optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
            owner = mine()
            if owner is None:
                return None
            given = (*args, *kwargs.values()) if kwargs or len(args) > 1 else ()
            closure = next((each for each in given if each is not None and each is not optimizer), None)
            owner.before_step(optimizer, closure is not None)
            if not callable(closure):
                return None
            guarded = owner.guarded(optimizer, closure)
            own = tuple(guarded if each is closure else each for each in args)
            return own, {key: guarded if each is closure else each for key, each in kwargs.items()}

        self._hooked = optimizers
        self._handles = [each.register_step_pre_hook(hook) for each in optimizers]

    def _let_go(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._hooked = self._handles = ()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_handles": ()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._attach_to(self._hooked)
