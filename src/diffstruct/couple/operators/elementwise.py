"""Operators that treat entries one by one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

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


@op_rule("pow", "square", "mul")
def _square(call: Call) -> Sequence[Dims]:
    """Entry by entry, and a square where a tensor is multiplied by itself."""
    one, other = call.args[0], call.args[1] if len(call.args) > 1 else None
    if call.name == "square" or (
        other == 2 if call.name == "pow" and not isinstance(other, Tensor) else one is other
    ):
        call.state.squares.update(map(id, call.results))
    return elementwise(call)
