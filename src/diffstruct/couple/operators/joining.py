"""Operators that put tensors together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffstruct.couple.call import Call, Dims, broadcast, fresh, op_rule
from diffstruct.couple.findings import Dim
from diffstruct.couple.terms import Leaf, fix, sum_of


@op_rule("cat", "concat", "concatenate")
def _cat(call: Call) -> Sequence[Dims]:
    shape = call.results[0].shape
    # An empty tensor of one dimension is left out, whatever the dimensions of the others.
    tensors = [tensor for tensor in call.args[0] if tensor.ndim == len(shape)]
    dim = call.arg(1, "dim", 0) % len(shape)
    found = []
    for index in range(len(shape)):
        each = [call.dims(tensor)[index] for tensor in tensors]
        places = frozenset[Any]().union(*(one.places for one in each))
        if index == dim:
            found.append(Dim(sum_of([one.term for one in each]), places))
        else:
            for other in each[1:]:
                call.unify(each[0], other)
            found.append(Dim(each[0].term, places))
    return [tuple(found)]


@op_rule("stack")
def _stack(call: Call) -> Sequence[Dims]:
    shape = call.results[0].shape
    dim = call.arg(1, "dim", 0) % len(shape)
    inner = (*shape[:dim], *shape[dim + 1 :])
    dims = [*broadcast(call, call.args[0], inner)]
    dims.insert(dim, fresh(shape[dim], f"is stacked one by one in {call.state.where}"))
    return [tuple(dims)]


@op_rule("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d")
def _pad(call: Call) -> Sequence[Dims]:
    dims, pads = [*call.dims(call.args[0])], call.arg(1, "pad")
    reason = f"is padding in {call.state.where}"
    for index in range(len(pads) // 2):
        before, after = pads[2 * index : 2 * index + 2]
        dim = dims[-1 - index]
        if not before and not after:
            continue
        if before < 0 or after < 0 or call.name != "constant_pad_nd":
            fix(dim.term, call.why)
            dims[-1 - index] = fresh(dim.term.size + before + after, call.why)
        else:
            dims[-1 - index] = Dim(sum_of([Leaf(before, reason), dim.term, Leaf(after, reason)]), dim.places)
    return [tuple(dims)]
