"""The optimizer of the paper's revision 3: RMSProp whose updates are clipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from diffstruct.errors import ConfigurationError
from diffstruct.surgery import register_initial_state


class ClippedRMSprop(Optimizer):
    """RMSProp with each entry's update clipped (arXiv:1606.06216, revision 3).

    `v += (1 - decay) * (g^2 - v)`;  `w -= clip(lr * g / sqrt(v + eps), -limit, limit)`

    It differs from `torch.optim.RMSprop` in the clip, in where `eps` stands, and in that the accumulators
    may begin above zero, which makes a weight's first updates small.

    Args:
        params: parameters or groups of them; a group may have its own `initial`.
        lr: learning rate.
        decay: the fraction of the accumulator that stays at each step.
        limit: largest change of an entry in one step.
        eps: added under the root.
        initial: the initial value of the accumulators.
        new_unit: the initial value of the accumulators of new units.

    Raises:
        ConfigurationError: a parameter that cannot work.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.01,
        decay: float = 0.99,
        limit: float = 0.01,
        eps: float = 1e-8,
        initial: float = 0.0,
        new_unit: float = 0.01,
    ) -> None:
        above = lr > 0 and limit > 0 and eps > 0  # false for a NaN, too
        if not (above and initial >= 0 and new_unit >= 0 and 0 <= decay < 1):
            raise ConfigurationError(
                "lr, limit and eps must be above 0, initial and new_unit at least 0, decay in [0, 1), got "
                f"{lr=}, {limit=}, {eps=}, {initial=}, {new_unit=}, {decay=}"
            )
        defaults = {
            "lr": lr,
            "decay": decay,
            "limit": limit,
            "eps": eps,
            "initial": initial,
            "new_unit": new_unit,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; return the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            grads = [p.grad for p in params]
            squares = [self.square_avg(p, group["initial"]) for p in params]
            # squares = decay * squares + (1 - decay) * grads^2
            torch._foreach_mul_(squares, group["decay"])
            torch._foreach_addcmul_(squares, grads, grads, 1 - group["decay"])
            updates = torch._foreach_add(squares, group["eps"])
            torch._foreach_sqrt_(updates)
            torch._foreach_reciprocal_(updates)
            torch._foreach_mul_(updates, grads)
            torch._foreach_mul_(updates, group["lr"])
            torch._foreach_clamp_max_(updates, group["limit"])
            torch._foreach_clamp_min_(updates, -group["limit"])
            torch._foreach_sub_(params, updates)
        return loss

    def square_avg(self, parameter: Tensor, initial: float) -> Tensor:
        """The accumulator of `parameter`, shaped like it; begun at `initial` if there is none yet."""
        state = self.state[parameter]
        if "square_avg" not in state:
            state["square_avg"] = torch.full_like(parameter, initial)
        square_avg: Tensor = state["square_avg"]
        return square_avg


register_initial_state(ClippedRMSprop, "square_avg", lambda group, _: float(group["new_unit"]))
