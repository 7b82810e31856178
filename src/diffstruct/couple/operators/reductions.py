"""Operators in which the entries of a dimension meet."""

from __future__ import annotations

from collections.abc import Sequence

from diffstruct.couple.call import Call, Dims, fresh, op_rule
from diffstruct.couple.findings import Meeting
from diffstruct.couple.operators.elementwise import elementwise

MIXES_UNITS = {
    "mean": "the mean is taken over it",
    "var": "the variance is taken over it",
    "std": "the standard deviation is taken over it",
    "var_mean": "the variance is taken over it",
    "std_mean": "the standard deviation is taken over it",
    "amax": "the maximum is taken over it",
    "amin": "the minimum is taken over it",
    "max": "the maximum is taken over it",
    "min": "the minimum is taken over it",
    "prod": "the product is taken over it",
    "argmax": "the maximum is taken over it",
    "argmin": "the minimum is taken over it",
    "logsumexp": "log-sum-exp is taken over it",
    "median": "the median is taken over it",
}

AVERAGES = {"mean", "var", "std", "var_mean", "std_mean"}
"""Those that a normalisation written by hand may be made of."""


@op_rule("sum", "nansum", "linalg_vector_norm", "norm", "any", "all", "count_nonzero", *MIXES_UNITS)
def _reduce(call: Call) -> Sequence[Dims]:
    if call.name in ("max", "min") and len(call.tensors) == 2:
        return elementwise(call)
    dims, which = call.dims(call.args[0]), call.arg(2 if "norm" in call.name else 1, "dim")
    if isinstance(which, bool):  # the second argument of `var(x, unbiased)` is no dimension
        which = None
    elif which == [] and call.name in ("any", "all"):
        return [dims]  # these take an empty list at its word; for all others it means all dimensions
    which = [which] if isinstance(which, int) else which
    gone = {index % len(dims) for index in which} if which and dims else set(range(len(dims)))
    for index in gone:
        if call.name in AVERAGES and len(gone) == 1:
            centred = call.name != "mean" or id(call.args[0]) not in call.state.squares
            call.averages(dims[index], MIXES_UNITS[call.name], centred)
        elif call.name in MIXES_UNITS:
            call.fix(dims[index], MIXES_UNITS[call.name])
        elif call.name == "sum" and len({place.module for place in dims[index].places}) > 1:
            # The product of something with weights, written as one: `(x * weights).sum(-1)`.
            call.state.findings.inner.append(Meeting(dims[index].term, dims[index].places, frozenset()))
    found = []
    for result in call.results:
        if result.ndim == len(dims):
            kept = [fresh(1) if index in gone else dim for index, dim in enumerate(dims)]
        else:
            kept = [dim for index, dim in enumerate(dims) if index not in gone]
        found.append(tuple(kept))
    return found


ALONG = {
    "_softmax": "softmax is taken over it",
    "_log_softmax": "softmax is taken over it",
    "_safe_softmax": "softmax is taken over it",
    "softmax": "softmax is taken over it",
    "log_softmax": "softmax is taken over it",
    "cumsum": "is summed up in order",
    "cumprod": "is multiplied in order",
    "sort": "is sorted",
    "flip": "is flipped",
    "roll": "is rolled",
    "logcumsumexp": "is summed up in order",
}


@op_rule(*ALONG)
def _along(call: Call) -> Sequence[Dims]:
    """Along one dimension (or some) entries meet; the shape stays."""
    dims = call.dims(call.args[0])
    if call.name == "roll":
        which = call.arg(2, "dims") or range(len(dims))  # without dims, the flattened tensor is rolled
    elif call.name == "flip":
        which = call.arg(1, "dims")
    else:
        which = [call.arg(1, "dim", -1)]
    for index in which if dims else ():
        call.fix(dims[index], ALONG[call.name])
    return [dims] * len(call.results)


@op_rule("_is_all_true", "_is_any_true")
def _is_true(call: Call) -> Sequence[Dims]:
    """A question about all entries, as checks of arguments ask."""
    return [()]


@op_rule("topk", "kthvalue")
def _topk(call: Call) -> Sequence[Dims]:
    dims = [*call.dims(call.args[0])]
    if not dims:
        return [()] * len(call.results)
    index = call.arg(2, "dim", -1)
    call.fix(dims[index], "the largest of it are taken")
    shape = call.results[0].shape
    if len(shape) == len(dims):
        dims[index] = fresh(shape[index], call.why)
    else:
        dims.pop(index)
    return [tuple(dims)] * len(call.results)


@op_rule("tril", "triu")
def _triangle(call: Call) -> Sequence[Dims]:
    dims = call.dims(call.args[0])
    for dim in dims[-2:]:
        call.fix(dim, f"a triangle of it is taken by {call.name}")
    return [dims]
