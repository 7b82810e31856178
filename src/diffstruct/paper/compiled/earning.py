"""The training loop of units that are judged by what they earn, compiled: whole updates, with Adam.

As in `network`, from which forward and backward come: `advance` does what `training.Trainer.update` does with
PyTorch, and price and rule are compiled from where they are written, `earnings` and `rule`.

Letters in shapes: T characters of a sequence, V symbols, N units.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from diffstruct.criteria import importance
from diffstruct.nn.kernels.compile import compiled
from diffstruct.paper.compiled.network import (
    CHANGES,
    CONTINUES,
    DIVERGED,
    Tensors,
    backward,
    choose,
    forward,
)

_observe = compiled(importance.update_averages)
_alone = compiled(importance.marginal)
_diagonal = compiled(importance.diagonal)
_eased = compiled(importance.annealing)
_remainder = compiled(importance.decay_factors)


class Constants(NamedTuple):
    """Adam's parameters, in the network's type, and the price's; see `price.UnitPrice`."""

    ruled: bool  # units are judged after each update
    lr: Any
    beta1: Any
    beta2: Any
    eps: Any
    longest: float  # norm of the gradient
    predictions: float
    share: float  # of the loss, which is their sum, that their mean is
    rate: float
    unit_price: float
    strength: float
    power: float
    grace_period: int
    rise: int
    updates: int
    ease: float
    smoothing: float


@compiled
def _sum_of_squares(values: Any) -> Any:
    total = 0.0
    flat = values.reshape(-1)
    for i in range(flat.shape[0]):
        total += flat[i] * flat[i]
    return total


@compiled
def _adam(w: Any, mean: Any, square: Any, g: Any, c: Any, factor: Any, unbias1: Any, unbias2: Any) -> None:
    """`torch.optim.Adam` on one tensor; `factor` shortens its gradient first."""
    w, mean, square, g = w.reshape(-1), mean.reshape(-1), square.reshape(-1), g.reshape(-1)
    one = c.lr / c.lr
    for i in range(w.shape[0]):
        slope = g[i] * factor
        mean[i] += (slope - mean[i]) * (one - c.beta1)
        square[i] = square[i] * c.beta2 + (one - c.beta2) * (slope * slope)
        w[i] -= c.lr / unbias1 * mean[i] / (math.sqrt(square[i]) / unbias2 + c.eps)


@compiled
def _slopes(w: Any, g: Any) -> Any:
    """The derivative of the loss with respect to a factor on all that each unit says, `[N]`."""
    symbols, units = w.W_hy.shape
    result = np.zeros(units)
    for v in range(symbols):
        for i in range(units):
            result[i] += w.W_hy[v, i] * g.W_hy[v, i]
    for j in range(units):
        for i in range(units):
            result[i] += w.W_hh[j, i] * g.W_hh[j, i]
    return result


@compiled
def _pay(weights: Any, factors: Any) -> None:
    """Multiply what each unit says, `weights` `[to, N]`, by its factor `[N]`."""
    for j in range(weights.shape[0]):
        for i in range(weights.shape[1]):
            weights[j, i] *= factors[i]


@compiled
def advance(
    text: Any,
    position: int,
    length: int,
    updates: int,
    w: Any,
    means: Any,
    squares: Any,
    step: int,
    state: Any,
    smoothed: float,
    c: Any,
    fisher: Any,
    mean_slopes: Any,
    earned: Any,
    ages: Any,
    risen: Any,
    generator: Any,
    numbers: Any,
) -> Any:
    """Make `updates` whole updates, or as many as it takes until the structure is to change.

    Args:
        text: symbols, int64; the first update reads `length` of them from `position` on.
        w: the parameters, trained in place, a `Tensors`.
        means: Adam's first moments, in place, a `Tensors`.
        squares: Adam's second moments, in place, a `Tensors`.
        step: updates that Adam has made before.
        state: `[N]`, the hidden state, carried on in place.
        smoothed: the moving average of the loss.
        c: a `Constants`.
        fisher: `[N, N]` or `[N]`, what is known of the units' earnings, in place; see `earnings`.
        mean_slopes: `[N]`, their moving averages, in place.
        earned: `[N]`, what the price sets against itself.
        ages: `[N]`, the rule's memory, like `risen` in place.
        generator: of the rule.
        numbers: the rule's parameters, from `Rule.numbers`.

    Returns:
        As `network.advance` does.
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
    real = w.b_y.dtype.type
    none = np.zeros(units, np.bool_)
    loss = 0.0
    for update in range(updates):
        start = position + update * length
        inputs = text[start : start + length]
        targets = text[start + 1 : start + length + 1]
        loss = forward(inputs, targets, w, state, states, errors)
        if not math.isfinite(loss):
            return DIVERGED, update, smoothed, loss, none, 0
        backward(inputs, w, states, errors, g, False)
        if c.ruled:
            _observe(fisher, mean_slopes, c.share * _slopes(w, g), c.predictions, ages + 1, c.rate)
        norm = math.sqrt(
            _sum_of_squares(g.W_xh)
            + _sum_of_squares(g.W_hh)
            + _sum_of_squares(g.W_hy)
            + _sum_of_squares(g.b_h)
            + _sum_of_squares(g.b_y)
        )
        factor = real(min(1.0, c.longest / (norm + 1e-6)))
        step += 1
        unbias1 = real(1 - float(c.beta1) ** step)
        unbias2 = real(math.sqrt(1 - float(c.beta2) ** step))
        _adam(w.W_xh, means.W_xh, squares.W_xh, g.W_xh, c, factor, unbias1, unbias2)
        _adam(w.W_hh, means.W_hh, squares.W_hh, g.W_hh, c, factor, unbias1, unbias2)
        _adam(w.W_hy, means.W_hy, squares.W_hy, g.W_hy, c, factor, unbias1, unbias2)
        _adam(w.b_h, means.b_h, squares.b_h, g.b_h, c, factor, unbias1, unbias2)
        _adam(w.b_y, means.b_y, squares.b_y, g.b_y, c, factor, unbias1, unbias2)
        state[:] = states[length]
        smoothed = c.smoothing * smoothed + (1 - c.smoothing) * loss
        if c.ruled:
            due = c.strength * _eased(step, c.updates, c.ease)
            left = _remainder(earned, ages, c.unit_price, due, c.power, c.grace_period, c.rise).astype(real)
            _pay(w.W_hh, left)
            _pay(w.W_hy, left)
            saliences = _alone(_diagonal(fisher), mean_slopes, c.predictions)
            if not np.isfinite(saliences).all():
                return DIVERGED, update + 1, smoothed, loss, none, 0
            gone, add = choose(saliences, ages, risen, generator, *numbers)
            if add > 0 or gone.any():
                return CHANGES, update + 1, smoothed, loss, gone, add
    return CONTINUES, updates, smoothed, loss, none, 0
