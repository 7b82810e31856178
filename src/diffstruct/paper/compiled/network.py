"""The paper's training loop, compiled: whole updates of one small network, without an interpreter between.

`advance` does what `training.Trainer.update` does with PyTorch: forward, backward, price, optimizer, rule.
The price's formulas and the rule are not written again: they are compiled from `price` and `rule`. It
works in place on the memory of the network's parameters and of its optimizer's state, in PyTorch's layout,
and returns when the rule wants the structure changed.

Letters in shapes: T characters of a sequence, V symbols, N units.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numba.extending import overload

from diffstruct.criteria import l1 as price
from diffstruct.nn.kernels.blocks import accumulate, exp_negative, tanh
from diffstruct.nn.kernels.compile import OPTIONS, compiled
from diffstruct.rule import rule

CONTINUES, CHANGES, DIVERGED = 0, 1, 2
"""Why `advance` came back: all updates made; the structure is to change; a loss or salience is not finite."""


class Tensors(NamedTuple):
    """One array for each parameter of the network: values, gradients, or the optimizer's accumulators."""

    W_xh: Any  # [N, V]
    W_hh: Any  # [N, N], to the row's unit from the column's
    W_hy: Any  # [V, N]
    b_h: Any  # [N]
    b_y: Any  # [V]
    m: Any  # [N]; ones that nothing trains where the network has no multipliers


class Constants(NamedTuple):
    """What distinguishes the revisions, and fixed sizes, in plain numbers of the network's type."""

    multiplier: bool  # the network has multipliers, judges by them and prices them
    defect: bool  # the gradient of the multipliers is revision 1's
    ruled: bool  # the rule is asked after each update
    adagrad: bool  # else RMSProp with clipped updates
    lr: Any
    eps: Any
    decay: Any  # of RMSProp's accumulators
    limit: Any  # of a gradient's entry (Adagrad), or of an update's (RMSProp)
    price: Any
    floor: Any
    smoothing: float


# What the formulas of `price` are made of, for single numbers, so that they compile as they stand.
@overload(torch.sign, jit_options=OPTIONS)
def _sign(input: Any) -> Any:
    real = np.float32 if input == numba.types.float32 else np.float64
    one, zero = real(1), real(0)

    def implementation(input: Any) -> Any:
        return (one if input > zero else zero) - (one if input < zero else zero)

    return implementation


@overload(torch.clamp, jit_options=OPTIONS)
def _clamp(input: Any, min: Any) -> Any:
    def implementation(input: Any, min: Any) -> Any:
        return min if input < min else input

    return implementation


_subgradient = compiled(price.subgradient)
_sign_step = compiled(price.sign_step)
_at_least = compiled(price.at_least)
choose = compiled(rule.choose)


@compiled
def forward(inputs: Any, targets: Any, w: Any, state: Any, states: Any, errors: Any) -> Any:
    """The loss on `inputs`, `targets` (each `[T]`), in nats, read from the state `[N]` on.

    Writes the states before, between and after, `[T + 1, N]`, and the loss's gradient with respect to the
    logits, `errors` `[V, T]`.
    """
    steps, symbols, units = len(inputs), w.W_hy.shape[0], state.shape[0]
    # From the column's unit to the row's neighbours in memory: the inner loops run over receiving units.
    spoken = w.W_hh.T.copy()  # [from, to]
    heard = w.W_xh.T.copy()  # [V, N]
    for v in range(symbols):
        for j in range(units):
            heard[v, j] += w.b_h[j]
    states[0] = state
    for t in range(steps):
        following = states[t + 1]
        following[:] = heard[inputs[t]]
        accumulate(following, states[t], spoken)
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
def backward(inputs: Any, w: Any, states: Any, errors: Any, g: Any, defect: bool) -> None:
    """Write the gradient of the loss into `g`; arguments as `forward` left them."""
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


@compiled
def _adagrad(w: Any, square: Any, g: Any, c: Any) -> None:
    """`torch.optim.Adagrad` on one flat tensor, its gradient clipped first."""
    for i in range(w.shape[0]):
        clipped = min(max(g[i], -c.limit), c.limit)
        square[i] += clipped * clipped
        w[i] -= c.lr * clipped / math.sqrt(square[i])


@compiled
def _rmsprop(w: Any, square: Any, g: Any, c: Any) -> None:
    """`rmsprop.ClippedRMSprop` on one flat tensor."""
    rest = w.dtype.type(1) - c.decay
    for i in range(w.shape[0]):
        square[i] = c.decay * square[i] + rest * (g[i] * g[i])
        step = c.lr * g[i] / math.sqrt(square[i] + c.eps)
        w[i] -= min(max(step, -c.limit), c.limit)


@compiled
def _optimize(w: Any, square: Any, g: Any, c: Any) -> None:
    if c.adagrad:
        _adagrad(w.reshape(-1), square.reshape(-1), g.reshape(-1), c)
    else:
        _rmsprop(w.reshape(-1), square.reshape(-1), g.reshape(-1), c)


@compiled
def _pay(w: Any, c: Any) -> None:
    """The price of revision 3, on one tensor of outgoing weights."""
    flat = w.reshape(-1)
    for i in range(flat.shape[0]):
        flat[i] = _sign_step(flat[i], c.price)


@compiled
def _salience(w: Any, c: Any) -> Any:
    """What each unit is judged by, `[N]`; see `norms.multiplier` and `norms.outgoing`."""
    if c.multiplier:
        return np.abs(w.m)
    symbols, units = w.W_hy.shape
    half, share = w.m.dtype.type(0.5), w.m.dtype.type(symbols) / w.m.dtype.type(units)
    outside, inside = np.zeros_like(w.m), np.zeros_like(w.m)
    for v in range(symbols):
        for i in range(units):
            outside[i] += abs(w.W_hy[v, i])
    for j in range(units):
        for i in range(units):
            inside[i] += abs(w.W_hh[j, i])
    return half * (outside + share * inside)


@compiled
def advance(
    text: Any,
    position: int,
    length: int,
    updates: int,
    w: Any,
    squares: Any,
    state: Any,
    smoothed: float,
    c: Any,
    ages: Any,
    risen: Any,
    generator: Any,
    numbers: Any,
) -> Any:
    """Make `updates` whole updates, or as many as it takes until the structure is to change.

    Args:
        text: symbols, int64; the first update reads `length` of them from `position` on.
        w: the parameters, trained in place, a `Tensors`.
        squares: the optimizer's accumulators, in place, a `Tensors`.
        state: `[N]`, the hidden state, carried on in place.
        smoothed: the moving average of the loss.
        c: a `Constants`.
        ages: `[N]`, the rule's memory, like `risen` in place.
        generator: of the rule.
        numbers: the rule's parameters, from `Rule.numbers`.

    Returns:
        Why it came back, how many updates it made, the moving average of the loss, the last loss, and the
        decision: which units go, `[N]` bool, and how many come. An update whose loss is not finite is not
        made; one whose saliences are not finite is, up to the rule.
    """
    units, symbols = state.shape[0], w.W_hy.shape[0]
    states = np.empty((length + 1, units), state.dtype)
    errors = np.empty((symbols, length), state.dtype)
    g = Tensors(
        np.empty_like(w.W_xh),
        np.empty_like(w.W_hh),
        np.empty_like(w.W_hy),
        np.empty_like(w.b_h),
        np.empty_like(w.b_y),
        np.empty_like(w.m),
    )
    none = np.zeros(units, np.bool_)
    loss = 0.0
    for update in range(updates):
        start = position + update * length
        inputs = text[start : start + length]
        targets = text[start + 1 : start + length + 1]
        loss = forward(inputs, targets, w, state, states, errors)
        if not math.isfinite(loss):
            return DIVERGED, update, smoothed, loss, none, 0
        backward(inputs, w, states, errors, g, c.defect)
        if c.multiplier:
            for j in range(units):
                g.m[j] += _subgradient(w.m[j], c.price)
            _optimize(w.m, squares.m, g.m, c)
        _optimize(w.W_xh, squares.W_xh, g.W_xh, c)
        _optimize(w.W_hh, squares.W_hh, g.W_hh, c)
        _optimize(w.W_hy, squares.W_hy, g.W_hy, c)
        _optimize(w.b_h, squares.b_h, g.b_h, c)
        _optimize(w.b_y, squares.b_y, g.b_y, c)
        if c.multiplier:
            for j in range(units):
                w.m[j] = _at_least(w.m[j], c.floor)
        elif not c.adagrad:
            _pay(w.W_hh, c)
            _pay(w.W_hy, c)
        state[:] = states[length]
        smoothed = c.smoothing * smoothed + (1 - c.smoothing) * loss
        if c.ruled:
            saliences = _salience(w, c)
            if not np.isfinite(saliences).all():
                return DIVERGED, update + 1, smoothed, loss, none, 0
            gone, add = choose(saliences, ages, risen, generator, *numbers)
            if add > 0 or gone.any():
                return CHANGES, update + 1, smoothed, loss, gone, add
    return CONTINUES, updates, smoothed, loss, none, 0
