"""Operators that look entries up."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from diffstruct.couple.call import Call, Dims, broadcast, created, fresh, op_rule, unknown
from diffstruct.couple.findings import Dim
from diffstruct.couple.terms import fix


@op_rule("embedding")
def _embedding(call: Call) -> Sequence[Dims]:
    weight, index = call.args[:2]
    rows, *columns = call.dims(weight)
    call.fix(rows, "is looked up by index")
    if call.state.is_weight(weight):
        for column in columns:
            call.state.findings.feeding |= column.places
    return [(*call.dims(index), *columns)]


@op_rule("_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(call: Call) -> Sequence[Dims]:
    rows, columns = call.dims(call.args[0])
    call.fix(rows, "is looked up by index")
    if call.state.is_weight(call.args[0]):
        call.state.findings.feeding |= columns.places
    first, *others = call.results
    return [(fresh(first.shape[0]), columns), *(tuple(map(fresh, other.shape)) for other in others)]


@op_rule("index_select")
def _index_select(call: Call) -> Sequence[Dims]:
    dims = [*call.dims(call.args[0])]
    index, chosen = call.args[1:3]
    if dims:  # a single number stays one
        call.fix(dims[index], "is looked up by index")
        dims[index] = call.dims(chosen)[0] if chosen.ndim else fresh(1)
    return [tuple(dims)]


@op_rule("index", "_unsafe_index")
def _index(call: Call) -> Sequence[Dims]:
    dims, indices = call.dims(call.args[0]), call.args[1]
    if any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in indices):
        return unknown(call)
    given = [at for at, each in enumerate(indices) if each is not None]
    for at in given:
        call.fix(dims[at], "is looked up by index")
    tensors = [indices[at] for at in given]
    shape = torch.broadcast_shapes(*(each.shape for each in tensors))  # type: ignore[no-untyped-call]
    looked = broadcast(call, tensors, shape)
    kept = [(at, dim) for at, dim in enumerate(dims) if at not in given]
    adjacent = given == [*range(given[0], given[-1] + 1)]
    before = [dim for at, dim in kept if adjacent and at < given[0]]
    after = [dim for at, dim in kept if not (adjacent and at < given[0])]
    return [(*before, *looked, *after)]


@op_rule("index_add", "index_copy")
def _index_add(call: Call) -> Sequence[Dims]:
    """Rows are looked up; along all other dimensions entry by entry."""
    target, dim, _, source = call.args[:4]
    dims, theirs = [*call.dims(target)], call.dims(source)
    if target.ndim != source.ndim or not dims:
        return unknown(call)
    for index, other in enumerate(theirs):
        if index == dim % len(dims):
            call.fix(dims[index], f"is looked up by {call.name}")
            call.fix(other, f"is looked up by {call.name}")
        else:
            call.unify(dims[index], other)
            dims[index] = Dim(dims[index].term, dims[index].places | other.places)
    return [tuple(dims)]


@op_rule("gather", "scatter", "scatter_add", "scatter_reduce")
def _gather(call: Call) -> Sequence[Dims]:
    """Along `dim` by index; along the others entry by entry, where all of them are taken."""
    target, at, result = call.args[0], call.args[1], call.results[0]
    dims = call.dims(result) if call.state.is_known(result) else None
    found = [*(dims or [fresh(size) for size in result.shape])]
    if any(tensor.ndim != target.ndim for tensor in call.tensors):
        return unknown(call)  # single numbers among them
    for tensor in call.tensors:
        for index, dim in enumerate(call.dims(tensor)):
            if index == at % target.ndim:
                call.fix(dim, f"is looked up by {call.name}")
            elif dim.term.size == found[index].term.size:
                call.unify(found[index], dim)
                found[index] = Dim(found[index].term, found[index].places | dim.places)
            else:
                call.fix(dim, f"is taken in part by {call.name}")
                fix(found[index].term, call.why)
    if found:
        fix(found[at].term, call.why)
    return [tuple(found)]


@op_rule(
    "zeros", "ones", "empty", "full", "rand", "randn", "randint", "arange", "eye", "linspace", "scalar_tensor"
)
def _factory(call: Call) -> Sequence[Dims]:
    return created(call)
