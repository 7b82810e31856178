"""Operators that treat entries one by one."""

from __future__ import annotations

from collections.abc import Sequence

from diffstruct.couple.call import Call, Dims, broadcast, op_rule


@op_rule(
    "alias",
    "bernoulli",
    "clone",
    "contiguous",
    "copy",
    "detach",
    "dropout",
    "fill",
    "lift_fresh",
    "masked_fill",
    "native_dropout",
    "normal",
    "uniform",
    "where",
    "zero",
    "_to_copy",
)
def elementwise(call: Call) -> Sequence[Dims]:
    """Entry by entry, with the usual broadcasting."""
    return [broadcast(call, call.tensors, result.shape) for result in call.results]
