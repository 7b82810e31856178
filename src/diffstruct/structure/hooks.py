"""A structure acts before each step of its optimizers."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol

from torch.optim import Optimizer


class ActsBeforeSteps(Protocol):
    """What acts on gradients before an optimizer's step."""

    def before_step(self, optimizer: Optimizer) -> None:
        """Act on the gradients."""
        ...


def before_each_step(structure: ActsBeforeSteps, optimizers: Sequence[Optimizer]) -> None:
    """Let `structure.before_step` be called before each step of the optimizers, while it is alive."""
    mine = weakref.ref(structure)  # an optimizer must not keep a structure alive that is used no more

    for optimizer in optimizers:

        def hook(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            owner = mine()
            if owner is not None:
                owner.before_step(optimizer)

        optimizer.register_step_pre_hook(hook)
