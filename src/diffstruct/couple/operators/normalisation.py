"""Operators that normalise."""

from __future__ import annotations

from collections.abc import Sequence

from diffstruct.couple.call import Call, Dims, fresh, op_rule
from diffstruct.couple.findings import Dim
from diffstruct.couple.terms import Leaf, UnificationError, factor, fix


@op_rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit_functional",
    "_batch_norm_with_update",
    "_batch_norm_no_update",
    "cudnn_batch_norm",
    "miopen_batch_norm",
)
def _batch_norm(call: Call) -> Sequence[Dims]:
    x, *others = call.tensors
    dims = call.dims(x)
    for tensor in others:
        call.unify(dims[1], call.dims(tensor)[0])
    found = [dims]
    for result in call.results[1:]:
        fits = [*result.shape] == [dims[1].term.size]
        found.append((dims[1],) if fits else tuple(map(fresh, result.shape)))
    return found


@op_rule("native_layer_norm", "_fused_rms_norm")
def _layer_norm(call: Call) -> Sequence[Dims]:
    x = call.args[0]
    dims, shape = call.dims(x), call.args[1]
    rms = "rms" in call.name
    what = f"{'RMSNorm' if rms else 'LayerNorm'} takes the mean over it"
    if len(shape) == 1:
        call.averages(dims[-1], what, centred=not rms, eps=call.args[3 if rms else 4])
    else:
        for dim in dims[-len(shape) :]:
            call.fix(dim, what)
    written = [*dims]
    for tensor in call.tensors[1:]:
        for index, other in zip(range(-len(shape), 0), call.dims(tensor), strict=True):
            call.unify(dims[index], other)
            written[index] = Dim(dims[index].term, written[index].places | other.places)
    rest = [
        tuple(
            dim if dim.term.size == size else fresh(size)
            for dim, size in zip(dims, result.shape, strict=False)
        )
        for result in call.results[1:]
    ]
    return [tuple(written), *rest]


@op_rule("native_group_norm")
def _group_norm(call: Call) -> Sequence[Dims]:
    x, groups = call.args[0], call.args[6]
    channels = call.dims(x)[1]
    try:
        outer, inner = factor(channels.term, groups)
        fix(inner, f"GroupNorm takes the mean over it in {call.state.where}")
    except UnificationError:
        outer = Leaf(groups, call.why)
        fix(channels.term, call.why)
    call.divides(outer)
    for tensor in call.tensors[1:]:
        call.unify(channels, call.dims(tensor)[0])
    batch = call.dims(x)[0]
    return [call.dims(x), *[(batch, Dim(outer))] * 2]
