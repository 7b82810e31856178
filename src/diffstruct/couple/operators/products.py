"""Operators that multiply and sum: here weights read units."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from diffstruct.couple.call import Call, Dims, broadcast, fresh, op_rule
from diffstruct.couple.findings import Dim
from diffstruct.couple.terms import UnificationError, factor, fix, product_of, unify


@op_rule("mm")
def _mm(call: Call) -> Sequence[Dims]:
    return [_product(call, *call.args[:2])]


@op_rule("addmm", "addmv", "baddbmm")
def _addmm(call: Call) -> Sequence[Dims]:
    bias, one, other = call.args[:3]
    dims = _product(call, one, other)
    shape = call.results[0].shape
    found = []
    for dim, theirs in zip(broadcast(call, [bias], shape), dims, strict=True):
        call.unify(dim, theirs)
        found.append(Dim(theirs.term, theirs.places | dim.places))
    return [tuple(found)]


@op_rule("mv", "dot", "bmm", "vdot")
def _bmm(call: Call) -> Sequence[Dims]:
    return [_product(call, *call.args[:2])]


def _product(call: Call, one: Tensor, other: Tensor) -> Dims:
    """`one` `[..., i, k]` times `other` `[..., k, j]`, or of fewer dimensions."""
    vector = other.ndim == 1
    call.contract((one, one.ndim - 1), (other, 0 if vector else other.ndim - 2))
    ours, theirs = call.dims(one), call.dims(other)
    batch: list[Dim] = []
    if one.ndim == 3:
        call.unify(ours[0], theirs[0])
        batch.append(ours[0])
        if not call.state.is_weight(one) and not call.state.is_weight(other):
            call.state.findings.heads.append(ours[0].term)
    rows = [] if one.ndim == 1 else [ours[-2]]
    return (*batch, *rows, *([] if vector else [theirs[-1]]))


@op_rule("_trilinear")
def _trilinear(call: Call) -> Sequence[Dims]:
    """The product of three that `bilinear` is made of, with dimensions of one where `expand` has them."""
    one, two, three, expand1, expand2, expand3, summed = call.args[:7]
    dims = []
    total = one.ndim + len(expand1)
    for tensor, added in ((one, expand1), (two, expand2), (three, expand3)):
        own = [*enumerate(call.dims(tensor))]
        dims.append([None if index in added else own.pop(0) for index in range(total)])
    weight = [call.state.is_weight(tensor) for tensor in (one, two, three)]
    found = []
    for index in range(total):
        here = [
            (entry[index], tensor, heavy)
            for entry, tensor, heavy in zip(dims, (one, two, three), weight, strict=True)
        ]
        present = [(at[1], heavy) for at, _, heavy in here if at is not None]
        first = present[0]
        for later in present[1:]:
            if index in summed:
                call.state.contract(first[0], later[0], first[1], later[1], call.why)
            else:
                call.unify(first[0], later[0])
        if index not in summed:
            found.append(first[0])
    return [tuple(found)]


@op_rule("convolution", "_convolution", "convolution_overrideable")
def _convolution(call: Call) -> Sequence[Dims]:
    x, weight, bias = call.args[:3]
    transposed, groups = call.args[6], call.args[8]
    result = call.results[0]
    batch = [call.dims(x)[0]] if x.ndim == weight.ndim else []
    channel = len(batch)
    entering, kernel = call.dims(x)[channel], call.dims(weight)
    read, written = (0, 1) if transposed else (1, 0)
    if groups == 1:
        call.contract((x, channel), (weight, read))
        leaving = kernel[written]
    else:
        leaving = _grouped(call, entering, kernel, groups, transposed)
    if bias is not None:
        call.unify(leaving, call.dims(bias)[0])
        leaving = Dim(leaving.term, leaving.places | call.dims(bias)[0].places)
    for dim in kernel[2:]:
        call.fix(dim, "is the size of a kernel")
    reason = f"is spatial in {call.state.where}"
    return [(*batch, leaving, *(fresh(size, reason) for size in result.shape[channel + 1 :]))]


def _grouped(call: Call, entering: Dim, kernel: Dims, groups: int, transposed: bool) -> Dim:
    heavy = call.state.is_weight(call.args[1])
    light = call.state.is_weight(call.args[0])
    try:
        outer, inner = factor(entering.term, groups)
        if transposed:
            ours, read = factor(kernel[0].term, groups)
            leaving = Dim(product_of([ours, kernel[1].term]), kernel[1].places)
            reading = Dim(read, kernel[0].places)
        else:
            ours, _ = factor(kernel[0].term, groups)
            leaving, reading = kernel[0], kernel[1]
    except UnificationError:
        for dim in (entering, *kernel[:2]):
            fix(dim.term, call.why)
        return fresh(call.results[0].shape[-(len(kernel) - 2) - 1], call.why)
    unify(outer, ours, call.why)
    call.divides(outer)
    call.state.contract(Dim(inner), reading, light, heavy and inner.size > 1, call.why)
    return leaving
