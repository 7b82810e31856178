"""The criteria of the paper's networks, compiled. Their formulas are compiled from where they are written.

What a criterion does to one update stands in three functions, chosen by its type: `before_step`, `after_step`
and `judge`.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any, NamedTuple

import numba
import numpy as np
import torch

from diffstruct.criteria import Criterion, Multipliers, OutgoingNorm, l1
from diffstruct.errors import StructureError
from diffstruct.nn.kernels.compile import compiled, overload


class Nothing(NamedTuple):
    """No criterion: a network of a fixed size."""

    nothing: bool = True


class MultiplierNorm(NamedTuple):
    """`criteria.Multipliers`, its price a subgradient."""

    price: Any
    floor: Any


class WeightNorm(NamedTuple):
    """`criteria.OutgoingNorm`, its price a step against the sign."""

    price: Any


# What the formulas of `l1` are made of, for single numbers, so that they compile as they stand.
@overload(torch.sign)
def _sign(input: Any) -> Any:
    real = np.float32 if input == numba.types.float32 else np.float64
    one, zero = real(1), real(0)

    def implementation(input: Any) -> Any:
        return (one if input > zero else zero) - (one if input < zero else zero)

    return implementation


@overload(torch.clamp)
def _clamp(input: Any, min: Any) -> Any:
    def implementation(input: Any, min: Any) -> Any:
        return min if input < min else input

    return implementation


_subgradient = compiled(l1.subgradient)
_sign_step = compiled(l1.sign_step)
_at_least = compiled(l1.at_least)


def before_step(criterion: Any, w: Any, g: Any, ages: Any) -> None:
    """Act on the gradients `g`, before the optimizer's step; `ages` `[N]`."""
    raise StructureError("this works in compiled code only")


def after_step(criterion: Any, w: Any, ages: Any, step: int) -> None:
    """Act on the weights `w`, after the optimizer's step number `step`; `ages` `[N]`."""
    raise StructureError("this works in compiled code only")


def judge(criterion: Any, w: Any) -> Any:
    """The importance of each unit, `[N]`."""
    raise StructureError("this works in compiled code only")


@overload(before_step)
def _before_step(criterion: Any, w: Any, g: Any, ages: Any) -> Any:
    return _BEFORE.get(criterion.instance_class, _leave_gradients)


@overload(after_step)
def _after_step(criterion: Any, w: Any, ages: Any, step: int) -> Any:
    return _AFTER.get(criterion.instance_class, _leave_weights)


@overload(judge)
def _judge(criterion: Any, w: Any) -> Any:
    return _JUDGE.get(criterion.instance_class, _judge_nothing)


def _leave_gradients(criterion: Any, w: Any, g: Any, ages: Any) -> None:
    pass


def _leave_weights(criterion: Any, w: Any, ages: Any, step: int) -> None:
    pass


def _judge_nothing(criterion: Any, w: Any) -> Any:
    return np.ones_like(w.m)


def _price_gradient(criterion: Any, w: Any, g: Any, ages: Any) -> None:
    for j in range(w.m.shape[0]):
        g.m[j] += _subgradient(w.m[j], criterion.price)


def _clip_multipliers(criterion: Any, w: Any, ages: Any, step: int) -> None:
    for j in range(w.m.shape[0]):
        w.m[j] = _at_least(w.m[j], criterion.floor)


def _judge_multipliers(criterion: Any, w: Any) -> Any:
    """See `norms.multiplier`."""
    return np.abs(w.m)


@compiled
def _step_against_sign(w: Any, price: Any) -> None:
    flat = w.reshape(-1)
    for i in range(flat.shape[0]):
        flat[i] = _sign_step(flat[i], price)


def _price_weights(criterion: Any, w: Any, ages: Any, step: int) -> None:
    _step_against_sign(w.W_hh, criterion.price)
    _step_against_sign(w.W_hy, criterion.price)


def _judge_weights(criterion: Any, w: Any) -> Any:
    """See `norms.outgoing`."""
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


_BEFORE = {MultiplierNorm: _price_gradient}
_AFTER = {MultiplierNorm: _clip_multipliers, WeightNorm: _price_weights}
_JUDGE = {MultiplierNorm: _judge_multipliers, WeightNorm: _judge_weights}


@singledispatch
def compiled_criterion(criterion: Criterion, real: Any) -> Any:
    """The criterion as compiled code takes it, working in the same memory.

    Args:
        criterion: attached to a network of the paper.
        real: the network's type of number.

    Raises:
        StructureError: there is no compiled form of it.
    """
    raise StructureError(
        f"a {type(criterion).__name__} has no compiled form: train with paper.training.Trainer instead"
    )


@compiled_criterion.register
def _(criterion: Multipliers, real: Any) -> MultiplierNorm:
    price = criterion.price
    if price.how != "gradient":
        raise StructureError(
            f"in compiled code a price on multipliers is paid by gradient, got {price.how!r}"
        )
    return MultiplierNorm(real(price.strength), real(-np.inf if price.floor is None else price.floor))


@compiled_criterion.register
def _(criterion: OutgoingNorm, real: Any) -> WeightNorm:
    price = criterion.price
    if price.how != "sign" or price.floor is not None:
        raise StructureError(f"in compiled code a price on weights is a step against the sign, got {price}")
    return WeightNorm(real(price.strength))


def has_compiled_form(criterion: Criterion) -> bool:
    """Whether compiled code can act and judge in the place of the criterion."""
    return compiled_criterion.dispatch(type(criterion)) is not compiled_criterion.dispatch(object)
