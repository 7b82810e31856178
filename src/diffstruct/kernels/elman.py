"""The Elman layer over a whole sequence, with its backward pass written out.

`h_t = tanh(a_t + W h_{t-1})`, with `a_t = W_xh x_t + b` computed outside for all steps at once. At the
widths of the paper autograd's bookkeeping at each step costs more than the arithmetic; here a sequence is
one node of the graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def reference(inputs: Tensor, weight: Tensor, initial: Tensor) -> Tensor:
    """The same by plain differentiable operations: what `elman` is tested against.

    Args:
        inputs: `[steps, batch, n]`, the projected inputs `a_t`.
        weight: `[n, n]`, hidden to hidden.
        initial: `[batch, n]`, the hidden state before the first step.

    Returns:
        The hidden states, `[steps, batch, n]`.
    """
    hidden, states = initial, []
    for step in inputs.unbind(0):
        hidden = torch.tanh(torch.addmm(step, hidden, weight.t()))
        states.append(hidden)
    return torch.stack(states)


class _Elman(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, initial: Tensor) -> Tensor:
        states = torch.empty_like(inputs)  # [steps, batch, n]
        transposed, hidden = weight.t(), initial
        for step, state in zip(inputs.unbind(0), states.unbind(0), strict=True):
            torch.addmm(step, hidden, transposed, out=state).tanh_()
            hidden = state
        ctx.save_for_backward(inputs, weight, initial, states)
        return states.clone()  # the caller may write into it

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, initial, states = ctx.saved_tensors
        if torch.is_grad_enabled():  # a derivative of this derivative is wanted
            # Views stand for the arguments, lest what one owes to another be counted here as well.
            views = [argument.view_as(argument) for argument in (inputs, weight, initial)]
            outputs = reference(*views)
            wanted = [view for view, need in zip(views, ctx.needs_input_grad, strict=True) if need]
            found = iter(torch.autograd.grad(outputs, wanted, grads[0], create_graph=True))
            return tuple(next(found) if need else None for need in ctx.needs_input_grad)
        slopes = 1 - states * states  # of tanh, [steps, batch, n]
        total = grads[0].clone(
            memory_format=torch.contiguous_format
        )  # becomes dL/da, from the last step back
        later: Tensor | None = None
        for grad, slope in zip(reversed(total.unbind(0)), reversed(slopes.unbind(0)), strict=True):
            if later is not None:
                grad.addmm_(later, weight)
            later = grad.mul_(slope)
        assert later is not None
        before = torch.cat([initial[None], states[:-1]])  # h_{t-1}
        units = total.shape[-1]
        grad_weight = total.reshape(-1, units).t() @ before.reshape(-1, units)
        return total, grad_weight, later @ weight


def elman(inputs: Tensor, weight: Tensor, initial: Tensor) -> Tensor:
    """The hidden states of an Elman layer, `[steps, batch, n]`; arguments as in `reference`."""
    states: Tensor = _Elman.apply(inputs, weight, initial)  # type: ignore[no-untyped-call]
    return states
