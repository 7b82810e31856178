"""The optimizers of the paper's networks, compiled: one step on all parameters, in place."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any, NamedTuple

import torch
from torch.optim import Optimizer

from diffstruct.errors import StructureError
from diffstruct.nn.kernels.compile import compiled, overload
from diffstruct.paper.compiled.arrays import Memories
from diffstruct.paper.revisions import GRADIENT_LIMIT, LARGEST_NORM
from diffstruct.paper.rmsprop import ClippedRMSprop


class Adagrad(NamedTuple):
    """`torch.optim.Adagrad`, of revisions 1 and 2: each entry of a gradient is clipped first."""

    sums: Any  # Tensors
    multiplier: bool  # whether the network has multipliers to train
    constants: Any  # AdagradConstants


class AdagradConstants(NamedTuple):
    """Numbers of the network's type. They stand by themselves: to hand arrays over takes time."""

    lr: Any
    limit: Any


class RMSprop(NamedTuple):
    """`rmsprop.ClippedRMSprop`, of revision 3: each entry of an update is clipped."""

    squares: Any  # Tensors
    constants: Any  # RMSpropConstants


class RMSpropConstants(NamedTuple):
    """Numbers of the network's type."""

    lr: Any
    eps: Any
    decay: Any
    limit: Any


class Adam(NamedTuple):
    """`torch.optim.Adam`; the norm of the whole gradient is clipped first."""

    means: Any  # Tensors
    squares: Any  # Tensors
    longest: float
    constants: Any  # AdamConstants


class AdamConstants(NamedTuple):
    """Numbers of the network's type."""

    lr: Any
    beta1: Any
    beta2: Any
    eps: Any


@compiled
def _adagrad(w: Any, total: Any, g: Any, c: Any) -> None:
    w, total, g = w.reshape(-1), total.reshape(-1), g.reshape(-1)
    for i in range(w.shape[0]):
        clipped = min(max(g[i], -c.limit), c.limit)
        total[i] += clipped * clipped
        w[i] -= c.lr * clipped / math.sqrt(total[i])


@compiled
def _rmsprop(w: Any, square: Any, g: Any, c: Any) -> None:
    w, square, g = w.reshape(-1), square.reshape(-1), g.reshape(-1)
    rest = w.dtype.type(1) - c.decay
    for i in range(w.shape[0]):
        square[i] = c.decay * square[i] + rest * (g[i] * g[i])
        step = c.lr * g[i] / math.sqrt(square[i] + c.eps)
        w[i] -= min(max(step, -c.limit), c.limit)


@compiled
def _adam(w: Any, mean: Any, square: Any, g: Any, c: Any, factor: Any, unbias1: Any, unbias2: Any) -> None:
    w, mean, square, g = w.reshape(-1), mean.reshape(-1), square.reshape(-1), g.reshape(-1)
    one = c.lr / c.lr
    for i in range(w.shape[0]):
        slope = g[i] * factor
        mean[i] += (slope - mean[i]) * (one - c.beta1)
        square[i] = square[i] * c.beta2 + (one - c.beta2) * (slope * slope)
        w[i] -= c.lr / unbias1 * mean[i] / (math.sqrt(square[i]) / unbias2 + c.eps)


@compiled
def _sum_of_squares(values: Any) -> Any:
    total = 0.0
    flat = values.reshape(-1)
    for i in range(flat.shape[0]):
        total += flat[i] * flat[i]
    return total


def optimize(optimizer: Any, w: Any, g: Any, step: int) -> None:
    """One step of an optimizer, in compiled code.

    Args:
        optimizer: one of the types above.
        w: the parameters, `Tensors`, trained in place.
        g: their gradients, `Tensors`.
        step: the number of the step, from 1.
    """
    raise StructureError(f"a {type(optimizer).__name__} works in compiled code only")


@overload(optimize)
def _optimize(optimizer: Any, w: Any, g: Any, step: int) -> Any:
    return _OPTIMIZE[optimizer.instance_class]


def _step_adagrad(optimizer: Any, w: Any, g: Any, step: int) -> None:
    sums, c = optimizer.sums, optimizer.constants
    if optimizer.multiplier:
        _adagrad(w.m, sums.m, g.m, c)
    _adagrad(w.W_xh, sums.W_xh, g.W_xh, c)
    _adagrad(w.W_hh, sums.W_hh, g.W_hh, c)
    _adagrad(w.W_hy, sums.W_hy, g.W_hy, c)
    _adagrad(w.b_h, sums.b_h, g.b_h, c)
    _adagrad(w.b_y, sums.b_y, g.b_y, c)


def _step_rmsprop(optimizer: Any, w: Any, g: Any, step: int) -> None:
    squares, c = optimizer.squares, optimizer.constants
    _rmsprop(w.W_xh, squares.W_xh, g.W_xh, c)
    _rmsprop(w.W_hh, squares.W_hh, g.W_hh, c)
    _rmsprop(w.W_hy, squares.W_hy, g.W_hy, c)
    _rmsprop(w.b_h, squares.b_h, g.b_h, c)
    _rmsprop(w.b_y, squares.b_y, g.b_y, c)


def _step_adam(optimizer: Any, w: Any, g: Any, step: int) -> None:
    means, squares, c = optimizer.means, optimizer.squares, optimizer.constants
    real = w.b_y.dtype.type
    norm = math.sqrt(
        _sum_of_squares(g.W_xh)
        + _sum_of_squares(g.W_hh)
        + _sum_of_squares(g.W_hy)
        + _sum_of_squares(g.b_h)
        + _sum_of_squares(g.b_y)
    )
    factor = real(min(1.0, optimizer.longest / (norm + 1e-6)))
    unbias1 = real(1 - float(c.beta1) ** step)
    unbias2 = real(math.sqrt(1 - float(c.beta2) ** step))
    _adam(w.W_xh, means.W_xh, squares.W_xh, g.W_xh, c, factor, unbias1, unbias2)
    _adam(w.W_hh, means.W_hh, squares.W_hh, g.W_hh, c, factor, unbias1, unbias2)
    _adam(w.W_hy, means.W_hy, squares.W_hy, g.W_hy, c, factor, unbias1, unbias2)
    _adam(w.b_h, means.b_h, squares.b_h, g.b_h, c, factor, unbias1, unbias2)
    _adam(w.b_y, means.b_y, squares.b_y, g.b_y, c, factor, unbias1, unbias2)


_OPTIMIZE = {Adagrad: _step_adagrad, RMSprop: _step_rmsprop, Adam: _step_adam}


@singledispatch
def compiled_optimizer(optimizer: Optimizer, memories: Memories, real: Any, multiplier: bool) -> Any:
    """The optimizer as compiled code takes it, working in the same memory.

    Args:
        optimizer: of the network.
        memories: gives a state of all parameters as `Tensors`, by name.
        real: the network's type of number.
        multiplier: whether the network has multipliers.

    Raises:
        StructureError: there is no compiled form of it.
    """
    raise StructureError(
        f"a {type(optimizer).__name__} has no compiled form: train with paper.training.Trainer instead"
    )


@compiled_optimizer.register
def _(optimizer: torch.optim.Adagrad, memories: Memories, real: Any, multiplier: bool) -> Adagrad:
    constants = AdagradConstants(real(optimizer.param_groups[0]["lr"]), real(GRADIENT_LIMIT))
    return Adagrad(memories("sum"), multiplier, constants)


@compiled_optimizer.register
def _(optimizer: ClippedRMSprop, memories: Memories, real: Any, multiplier: bool) -> RMSprop:
    group = optimizer.param_groups[0]
    constants = RMSpropConstants(*(real(group[name]) for name in RMSpropConstants._fields))
    return RMSprop(memories("square_avg"), constants)


@compiled_optimizer.register
def _(optimizer: torch.optim.Adam, memories: Memories, real: Any, multiplier: bool) -> Adam:
    group = optimizer.param_groups[0]
    beta1, beta2 = map(real, group["betas"])
    constants = AdamConstants(real(group["lr"]), beta1, beta2, real(group["eps"]))
    return Adam(memories("exp_avg"), memories("exp_avg_sq"), LARGEST_NORM, constants)
