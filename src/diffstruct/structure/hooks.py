"""Acting before each step of some optimizers, also after a deep copy."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
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

    def _attach_to(self, optimizers: Sequence[Optimizer]) -> None:
        mine = weakref.ref(self)

        def hook(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            owner = mine()
            if owner is not None:
                given = (*args, *kwargs.values()) if kwargs or len(args) > 1 else ()
                owner.before_step(optimizer, any(each not in (None, optimizer) for each in given))

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
