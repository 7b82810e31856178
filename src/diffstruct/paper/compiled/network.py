"""The paper's network, compiled: forward and backward through one sequence.

It works in place on the memory of the network's parameters, in PyTorch's layout.

Letters in shapes: T characters of a sequence, V symbols, N units.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from diffstruct.nn.kernels.blocks import accumulate, exp_negative, tanh
from diffstruct.nn.kernels.compile import compiled


class Tensors(NamedTuple):
    """One array for each parameter of the network: values, gradients, or the optimizer's accumulators."""

    W_xh: Any  # [N, V]
    W_hh: Any  # [N, N], to the row's unit from the column's
    W_hy: Any  # [V, N]
    b_h: Any  # [N]
    b_y: Any  # [V]
    m: Any  # [N]; ones that nothing trains where the network has no multipliers


@compiled
def empty_like(w: Any) -> Any:
    """Memory for gradients, shaped like the parameters `w`, not yet written."""
    return Tensors(
        np.empty_like(w.W_xh),
        np.empty_like(w.W_hh),
        np.empty_like(w.W_hy),
        np.empty_like(w.b_h),
        np.empty_like(w.b_y),
        np.empty_like(w.m),
    )


@compiled
def forward(inputs: Any, targets: Any, w: Any, state: Any, states: Any, errors: Any) -> Any:
    """The loss on `inputs`, `targets` (each `[T]`), in nats, read from the state `[N]` on.

    Writes the states before, between and after, `[T + 1, N]`, and the loss's gradient with respect to the
    logits, `errors` `[V, T]`.
    """
    steps, symbols, units = len(inputs), w.W_hy.shape[0], state.shape[0]
    # From the column's unit to the row's neighbours in memory: the inner loops run over receiving units.
    outgoing = w.W_hh.T.copy()  # [from, to]
    incoming = w.W_xh.T.copy()  # [V, N]
    for v in range(symbols):
        for j in range(units):
            incoming[v, j] += w.b_h[j]
    states[0] = state
    for t in range(steps):
        following = states[t + 1]
        following[:] = incoming[inputs[t]]
        accumulate(following, states[t], outgoing)
        for j in range(units):
            following[j] = tanh(following[j])
    over_time = states[1:].T.copy()  # [N, T]
    highest = np.empty_like(errors[0])  # [T]
    for v in range(symbols):
        logits = errors[v]
        logits[:] = w.b_y[v]
        accumulate(logits, w.W_hy[v] * w.m, over_time)
        for t in range(steps):
            highest[t] = logits[t] if v == 0 else max(highest[t], logits[t])
    loss = 0.0
    for t in range(steps):
        loss += highest[t] - errors[targets[t], t]
    total = np.zeros_like(highest)
    for v in range(symbols):
        for t in range(steps):
            errors[v, t] = exp_negative(errors[v, t] - highest[t])
            total[t] += errors[v, t]
    for v in range(symbols):
        for t in range(steps):
            errors[v, t] /= total[t]
    for t in range(steps):
        loss += math.log(total[t])
        errors[targets[t], t] -= w.b_y.dtype.type(1)  # a plain 1 would make everything float64
    return loss


@compiled
def backward(inputs: Any, w: Any, states: Any, errors: Any, g: Any, defect: bool | None) -> None:
    """Write the gradient of the loss into `g`; arguments as `forward` left them.

    `defect` is whether the gradient of the multipliers is revision 1's; None where there are no multipliers:
    less code is compiled then.
    """
    steps, symbols, units = len(inputs), w.W_hy.shape[0], states.shape[1]
    one = w.b_y.dtype.type(1)
    into = np.zeros((steps, units), states.dtype)  # [T, N]: W_hy^T dy, then dL/d what the tanh is taken of
    g.m[:] = 0
    g.b_h[:] = 0
    later = np.zeros(units, states.dtype)  # [N]: what the later steps send back
    by_symbol = np.zeros((symbols, units), states.dtype)  # [V, N]: gradient of W_xh, transposed
    for t in range(steps - 1, -1, -1):
        here, h = into[t], states[t + 1]
        accumulate(here, errors[:, t], w.W_hy)
        for j in range(units):
            if defect is not None:
                g.m[j] += here[j] * (w.m[j] if defect else h[j])
            here[j] = (w.m[j] * here[j] + later[j]) * (one - h[j] * h[j])
            g.b_h[j] += here[j]
            by_symbol[inputs[t], j] += here[j]
        later[:] = 0
        accumulate(later, here, w.W_hh)
    g.W_xh[:] = by_symbol.T
    for j in range(units):
        row = g.W_hh[j]
        row[:] = 0
        accumulate(row, into[:, j], states[:-1])
    for v in range(symbols):
        row = g.W_hy[v]
        row[:] = 0
        accumulate(row, errors[v], states[1:])
        g.b_y[v] = errors[v].sum()
        for j in range(units):
            row[j] *= w.m[j]
