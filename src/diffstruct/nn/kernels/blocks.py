"""Building blocks of the kernels: a vectorised multiply-accumulate, and elementwise functions.

All inner loops run over neighbouring entries in memory, without a reduction, so that the
compiler turns it into vector instructions and the order of every sum is fixed: a kernel gives the same bits
each time. `math.tanh` and `math.exp` would be a call for each entry; the ones here are arithmetic only, and
vectorise with the loop around them.

This module needs Numba; import it only where `kernels.available` is true.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from diffstruct.nn.kernels.compile import compiled, overload


@compiled
def accumulate(total: Any, factors: Any, rows: Any) -> None:
    """`total += factors @ rows`: total `[n]`, factors `[k]`, rows `[k, n]`, its last dimension contiguous.

    Four rows at a time, so that each entry of `total` is read and written a quarter as often.
    """
    units, count = total.shape[0], factors.shape[0]
    whole = count - count % 4
    for k in range(0, whole, 4):
        a, b, c, d = factors[k], factors[k + 1], factors[k + 2], factors[k + 3]
        for j in range(units):
            total[j] += a * rows[k, j] + b * rows[k + 1, j] + c * rows[k + 2, j] + d * rows[k + 3, j]
    for k in range(whole, count):
        a = factors[k]
        for j in range(units):
            total[j] += a * rows[k, j]


@intrinsic
def _power_of_two(typing_context: Any, exponent: Any, like: Any) -> Any:
    """`2 ** exponent` in the type of `like`, by writing its exponent bits; both of one width."""
    width, bias, mantissa, kind = (
        (32, 127, 23, ir.FloatType()) if like == types.float32 else (64, 1023, 52, ir.DoubleType())
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = ir.IntType(width)
        biased = builder.add(arguments[0], ir.Constant(integer, bias))
        return builder.bitcast(builder.shl(biased, ir.Constant(integer, mantissa)), kind)

    return like(types.int32 if width == 32 else types.int64, like), generate


def _scalar(numba_type: Any) -> Any:
    """The NumPy type for constants beside a number of `numba_type`, so that none widens it."""
    return np.float32 if numba_type == types.float32 else np.float64


# Each function has two forms: its definition, for plain numbers, and what is compiled in its place.


def _exp_split(x: Any) -> Any:
    """`(s, p)` with `exp(x) = s (1 + p)` for `x <= 0`."""
    return math.exp(x), 0.0


@overload(_exp_split)
def _(x: Any) -> Any:
    # s is a power of two, and p small and exact near zero.
    # x = k ln 2 + r with |r| <= ln(2) / 2: s = 2^k and p = exp(r) - 1, as its Taylor series. ln 2 comes in
    # two parts, so that r is exact (Cody and Waite 1980).
    real = _scalar(x)
    short = real is np.float32
    whole = np.int32 if short else np.int64
    high, low = (0.693359375, -2.12194440e-4) if short else (0.693147180369123816490, 1.90821492927058770e-10)
    high, low, per_ln2, half, one = real(high), real(low), real(1 / math.log(2)), real(0.5), real(1)
    lowest = real(-80.0 if short else -700.0)  # exp(lowest) is still a normal number
    c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14 = (
        real(1 / math.factorial(i)) for i in range(2, 15)
    )

    def implementation(x: Any) -> Any:
        clamped = x if x > lowest else lowest
        k = whole(clamped * per_ln2 - half)
        r = (clamped - real(k) * high) - real(k) * low
        if short:
            series = c2 + r * (c3 + r * (c4 + r * (c5 + r * (c6 + r * c7))))
        else:
            series = c8 + r * (c9 + r * (c10 + r * (c11 + r * (c12 + r * (c13 + r * c14)))))
            series = c2 + r * (c3 + r * (c4 + r * (c5 + r * (c6 + r * (c7 + r * series)))))
        p = r + r * r * series
        return _power_of_two(k, one), p if x == x else x

    return implementation


def tanh(x: Any) -> Any:
    """The hyperbolic tangent, to 2 units in the last place. NaN stays NaN."""
    return math.tanh(x)


@overload(tanh)
def _(x: Any) -> Any:
    one, two = _scalar(x)(1), _scalar(x)(2)

    def implementation(x: Any) -> Any:
        s, p = _exp_split(-two * abs(x))
        more = (one - s) - s * p  # 1 - exp(-2|x|)
        magnitude = abs(more) / (two - more)
        return magnitude if x >= 0 else -magnitude

    return implementation


def exp_negative(x: Any) -> Any:
    """`exp(x)` for `x <= 0`, as a softmax needs it, to 1 unit in the last place. NaN stays NaN."""
    return math.exp(x)


@overload(exp_negative)
def _(x: Any) -> Any:
    def implementation(x: Any) -> Any:
        s, p = _exp_split(x)
        return s + s * p

    return implementation


def sigmoid(x: Any) -> Any:
    """`1 / (1 + exp(-x))`, to 2 units in the last place. NaN stays NaN."""
    small = math.exp(-abs(x))
    return (1 if x >= 0 else small) / (1 + small)


@overload(sigmoid)
def _(x: Any) -> Any:
    one = _scalar(x)(1)

    def implementation(x: Any) -> Any:
        small = exp_negative(-abs(x))
        return (one if x >= 0 else small) / (one + small)

    return implementation
