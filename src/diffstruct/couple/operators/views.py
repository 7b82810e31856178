"""Operators that look at the same entries in another shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffstruct.couple.call import Call, Dims, broadcast, fresh, op_rule, unknown
from diffstruct.couple.findings import Dim
from diffstruct.couple.terms import Leaf, UnificationError, factor, fix, product_of, split


@op_rule("view", "_unsafe_view", "reshape", "_reshape_alias")
def _view(call: Call) -> Sequence[Dims]:
    if call.func._schema.name == "aten::view" and call.func._overloadname == "dtype":
        return unknown(call)
    return [_reshaped(call, call.dims(call.args[0]), call.results[0].shape)]


def _reshaped(call: Call, dims: Dims, shape: Sequence[int]) -> Dims:
    """Cut the dimensions into groups that the new shape keeps together, and each group anew."""
    if 0 in shape:
        return tuple(fresh(size, call.why) for size in shape)
    out: list[Dim] = []
    queue = [dim for dim in dims if dim.term.size != 1]
    sizes = [size for size in shape if size != 1]
    while sizes:
        group, wanted = [queue.pop(0)], [sizes.pop(0)]
        have, want = group[0].term.size, wanted[0]
        while have != want:
            if have < want:
                group.append(queue.pop(0))
                have *= group[-1].term.size
            else:
                wanted.append(sizes.pop(0))
                want *= wanted[-1]
        out += _regrouped(call, group, wanted)
    rest, ones = iter(out), _ones(dims)
    found, before = [], 1
    for size in shape:
        if size == 1:
            same = ones.get(before)
            found.append(same.pop(0) if same else fresh(1))
        else:
            found.append(next(rest))
        before *= size
    for merged in (dim for same in ones.values() for dim in same):
        call.state.findings.merged_ones.append((merged.term, f"{call.name} in {call.state.where}"))
    return tuple(found)


def _ones(dims: Dims) -> dict[int, list[Dim]]:
    """The dimensions of one entry, by how many entries the dimensions before have together."""
    found: dict[int, list[Dim]] = {}
    before = 1
    for dim in dims:
        if dim.term.size == 1:
            found.setdefault(before, []).append(dim)
        before *= dim.term.size
    return found


def _regrouped(call: Call, group: Sequence[Dim], sizes: Sequence[int]) -> list[Dim]:
    places = frozenset[Any]().union(*(dim.places for dim in group))
    whole = product_of([dim.term for dim in group])
    result = []
    try:
        rest = whole
        for size in sizes:
            left, rest = factor(rest, size)
            result.append(Dim(left, places))
    except UnificationError:
        fix(whole, call.why)
        return [fresh(size, call.why) for size in sizes]
    return result


@op_rule("permute")
def _permute(call: Call) -> Sequence[Dims]:
    dims = call.dims(call.args[0])
    return [tuple(dims[index] for index in call.arg(1, "dims"))]


@op_rule("t", "numpy_T")
def _t(call: Call) -> Sequence[Dims]:
    return [tuple(reversed(call.dims(call.args[0])))]


@op_rule("transpose")
def _transpose(call: Call) -> Sequence[Dims]:
    dims = [*call.dims(call.args[0])]
    one, other = call.args[1:3]
    if dims:
        dims[one], dims[other] = dims[other], dims[one]
    return [tuple(dims)]


@op_rule("unsqueeze")
def _unsqueeze(call: Call) -> Sequence[Dims]:
    dims = [*call.dims(call.args[0])]
    dims.insert(call.args[1] % (len(dims) + 1), fresh(1))
    return [tuple(dims)]


@op_rule("squeeze")
def _squeeze(call: Call) -> Sequence[Dims]:
    dims, which = call.dims(call.args[0]), call.arg(1, "dim")
    named = None if which is None else [which] if isinstance(which, int) else which
    drop = {index % max(1, len(dims)) for index in (range(len(dims)) if named is None else named)}
    kept = [dim for index, dim in enumerate(dims) if index not in drop or dim.term.size != 1]
    return [tuple(kept)]


@op_rule("expand", "broadcast_to")
def _expand(call: Call) -> Sequence[Dims]:
    return [broadcast(call, [call.args[0]], call.results[0].shape)]


@op_rule("repeat")
def _repeat(call: Call) -> Sequence[Dims]:
    dims, times = call.dims(call.args[0]), call.arg(1, "repeats")
    padded = [*[fresh(1)] * (len(times) - len(dims)), *dims]
    found = []
    for dim, count in zip(padded, times, strict=True):
        found.append(dim if count == 1 else Dim(product_of([Leaf(count), dim.term]), dim.places))
    return [tuple(found)]


@op_rule("slice")
def _slice(call: Call) -> Sequence[Dims]:
    dims = [*call.dims(call.args[0])]
    dim = call.arg(1, "dim", 0) or 0
    term, step = dims[dim].term, call.arg(4, "step", 1) or 1
    size, length = term.size, call.results[0].shape[dim]
    start = call.arg(2, "start") or 0
    start = min(max(start + size if start < 0 else start, 0), size)
    if length == size:
        return [tuple(dims)]
    try:
        if start < step and length * step == size:  # one of every few, as rotary embeddings take
            part, inner = factor(term, length)
            fix(inner, "is indexed one by one")
            dims[dim] = Dim(part, dims[dim].places)
            return [tuple(dims)]
        _, rest = split(term, start)
        part, _ = split(rest, min(length * step, rest.size))
        if step > 1:
            part, inner = factor(part, length)
            fix(inner, "is indexed one by one")
    except UnificationError:
        fix(term, call.why)
        part = Leaf(length, call.why)
    dims[dim] = Dim(part, dims[dim].places)
    return [tuple(dims)]


@op_rule("select")
def _select(call: Call) -> Sequence[Dims]:
    dims = [*call.dims(call.args[0])]
    call.fix(dims.pop(call.args[1]), "is indexed one by one")
    return [tuple(dims)]


@op_rule("unbind")
def _unbind(call: Call) -> Sequence[Dims]:
    dims = [*call.dims(call.args[0])]
    call.fix(dims.pop(call.arg(1, "dim", 0)), "is indexed one by one")
    return [tuple(dims)] * len(call.results)


@op_rule("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk")
def _split(call: Call) -> Sequence[Dims]:
    dims = call.dims(call.args[0])
    dim = call.arg(2, "dim", 0) % len(dims)
    rest, found = dims[dim].term, []
    for result in call.results:
        size = result.shape[dim]
        try:
            part, rest = split(rest, size)
        except UnificationError:
            fix(dims[dim].term, call.why)
            part, rest = Leaf(size, call.why), Leaf(rest.size - size, call.why)
        found.append((*dims[:dim], Dim(part, dims[dim].places), *dims[dim + 1 :]))
    return found


@op_rule("as_strided")
def _as_strided(call: Call) -> Sequence[Dims]:
    """The same entries in the same places, as pooling to one entry ends with."""
    tensor, size, stride = call.args[:3]
    same = all(a == b for a, b, n in zip(tensor.stride(), stride, size, strict=False) if n > 1)
    return [call.dims(tensor)] if [*tensor.shape] == [*size] and same else unknown(call)
