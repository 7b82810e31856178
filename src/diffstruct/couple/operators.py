"""What each ATen operator says of the dimensions of its tensors.

A rule takes a `Call` and returns the dimensions of each result; on the way it unifies dimensions that are
one, and fixes those that the operator does not treat unit by unit. An operator without a rule fixes
everything it touches, so that a missing rule can cost a width, never an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table

from diffstruct.couple.terms import Apart, Leaf, Sum, Term, factor, find, fix, product_of, split, sum_of, unify
from diffstruct.couple.trace import Dim, Trace

Dims = tuple[Dim, ...]


@dataclass(frozen=True)
class Call:
    """One call of an operator, with what it returned."""

    trace: Trace
    func: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    tensors: Sequence[Tensor]
    results: Sequence[Tensor]

    @property
    def name(self) -> str:
        """The operator's name without namespace and overload."""
        return str(self.func._schema.name).partition("::")[2]

    @property
    def why(self) -> str:
        """The reason that goes with whatever is fixed here."""
        return f"does not come through {self.name} in {self.trace.where} unit by unit"

    def dims(self, tensor: Tensor) -> Dims:
        """The dimensions of a tensor among the arguments."""
        return self.trace.dims(tensor)

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """An argument, given by position or by name."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)

    def unify(self, one: Dim, other: Dim) -> None:
        """Let both be one axis."""
        unify(one.term, other.term, self.why)

    def over(self, dim: Dim, what: str) -> None:
        """Fix a dimension because of what the operator does to it."""
        fix(dim.term, f"{what} in {self.trace.where}")

    def divides(self, groups: Term) -> None:
        """Note that the module that runs divides its channels into `groups`."""
        if self.trace.stack:
            self.trace.findings.groups[self.trace.stack[-1]] = groups

    def contract(self, one: tuple[Tensor, int], other: tuple[Tensor, int]) -> None:
        """Sum over a dimension of one tensor times that of another."""
        (a, i), (b, j) = one, other
        weight = self.trace.is_weight
        self.trace.contract(self.dims(a)[i], self.dims(b)[j], weight(a), weight(b), self.why)


Rule = Callable[[Call], Sequence[Dims]]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for the operators of these names, and their in-place forms."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


@cache
def expand(func: Any) -> Callable[..., Any] | None:
    """What to run in place of an operator that has no rule but is defined by simpler ones."""
    if _rule_of(func) is not None:
        return None
    if func.namespace == "diffstruct":
        return _reference(func)
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        return func.decompose
    return decomposition_table.get(func)


def _reference(func: Any) -> Callable[..., Any] | None:
    from importlib import import_module

    name = func._schema.name.partition("::")[2]
    kernel = getattr(import_module(f"diffstruct.kernels.{name}"), name)

    def run(*args: Any) -> Any:
        results = kernel.reference(*args)
        return *results, results[0].new_empty(0)  # nothing is kept for a way back

    return run


@cache
def _rule_of(func: Any) -> Rule | None:
    name = func._schema.name.partition("::")[2]
    if func.namespace != "aten":
        return None
    if name in RULES:
        return RULES[name]
    if name.endswith("_") and name[:-1] in RULES:
        return RULES[name[:-1]]
    if name.endswith("_like"):
        return _pointwise
    if torch.Tag.pointwise in func.tags:
        return _pointwise
    if name.startswith("new_"):
        return _created
    return None


def describe(call: Call) -> Sequence[Dims]:
    """The dimensions of each result of a call."""
    found = _rule_of(call.func)
    if found is None and not call.tensors:
        found = _created
    return (found or _unknown)(call)


def _unknown(call: Call) -> Sequence[Dims]:
    reason = f"goes through {call.func} in {call.trace.where}, which is not known to treat units one by one"
    for tensor in call.tensors:
        for dim in call.dims(tensor):
            fix(dim.term, reason)
    return [tuple(Dim(Leaf(size, reason)) for size in result.shape) for result in call.results]


def _fresh(size: int, reason: str | None = None) -> Dim:
    return Dim(Leaf(size, reason))


def _created(call: Call) -> Sequence[Dims]:
    return [tuple(map(_fresh, result.shape)) for result in call.results]


def _broadcast(call: Call, tensors: Sequence[Tensor], shape: Sequence[int]) -> Dims:
    """The dimensions of what comes of `tensors` entry by entry."""
    found: list[Dim | None] = [None] * len(shape)
    for tensor in tensors:
        for index, dim in enumerate(reversed(call.dims(tensor)), 1):
            if dim.term.size != shape[-index]:
                continue  # repeated along this dimension
            other = found[-index]
            if other is None:
                found[-index] = dim
            else:
                call.unify(other, dim)
                found[-index] = Dim(other.term, other.places | dim.places)
    return tuple(dim or _fresh(size) for dim, size in zip(found, shape, strict=True))


@rule(
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
def _pointwise(call: Call) -> Sequence[Dims]:
    return [_broadcast(call, call.tensors, result.shape) for result in call.results]


# --- views ---------------------------------------------------------------------------------------------


@rule("view", "_unsafe_view", "reshape", "_reshape_alias")
def _view(call: Call) -> Sequence[Dims]:
    if call.func._schema.name == "aten::view" and call.func._overloadname == "dtype":
        return _unknown(call)
    return [_reshaped(call, call.dims(call.args[0]), call.results[0].shape)]


def _reshaped(call: Call, dims: Dims, shape: Sequence[int]) -> Dims:
    """Cut the dimensions into groups that the new shape keeps together, and each group anew."""
    if 0 in shape:
        return tuple(_fresh(size, call.why) for size in shape)
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
    rest = iter(out)
    return tuple(next(rest) if size != 1 else _fresh(1) for size in shape)


def _regrouped(call: Call, group: Sequence[Dim], sizes: Sequence[int]) -> list[Dim]:
    places = frozenset[Any]().union(*(dim.places for dim in group))
    whole = product_of([dim.term for dim in group])
    result = []
    try:
        rest = whole
        for size in sizes:
            left, rest = factor(rest, size)
            result.append(Dim(left, places))
    except Apart:
        fix(whole, call.why)
        return [_fresh(size, call.why) for size in sizes]
    return result


@rule("permute")
def _permute(call: Call) -> Sequence[Dims]:
    dims = call.dims(call.args[0])
    return [tuple(dims[index] for index in call.arg(1, "dims"))]


@rule("t", "numpy_T")
def _t(call: Call) -> Sequence[Dims]:
    return [tuple(reversed(call.dims(call.args[0])))]


@rule("transpose")
def _transpose(call: Call) -> Sequence[Dims]:
    dims = [*call.dims(call.args[0])]
    one, other = call.args[1:3]
    if dims:
        dims[one], dims[other] = dims[other], dims[one]
    return [tuple(dims)]


@rule("unsqueeze")
def _unsqueeze(call: Call) -> Sequence[Dims]:
    dims = [*call.dims(call.args[0])]
    dims.insert(call.args[1] % (len(dims) + 1), _fresh(1))
    return [tuple(dims)]


@rule("squeeze")
def _squeeze(call: Call) -> Sequence[Dims]:
    dims, which = call.dims(call.args[0]), call.arg(1, "dim")
    named = None if which is None else [which] if isinstance(which, int) else which
    drop = {index % max(1, len(dims)) for index in (range(len(dims)) if named is None else named)}
    kept = [dim for index, dim in enumerate(dims) if index not in drop or dim.term.size != 1]
    return [tuple(kept)]


@rule("expand", "broadcast_to")
def _expand(call: Call) -> Sequence[Dims]:
    return [_broadcast(call, [call.args[0]], call.results[0].shape)]


@rule("repeat")
def _repeat(call: Call) -> Sequence[Dims]:
    dims, times = call.dims(call.args[0]), call.arg(1, "repeats")
    padded = [*[_fresh(1)] * (len(times) - len(dims)), *dims]
    found = []
    for dim, count in zip(padded, times, strict=True):
        found.append(dim if count == 1 else Dim(product_of([Leaf(count), dim.term]), dim.places))
    return [tuple(found)]


@rule("slice")
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
        _, rest = split(term, start)
        part, _ = split(rest, min(length * step, rest.size))
        if step > 1:
            part, inner = factor(part, length)
            fix(inner, "is indexed one by one")
    except Apart:
        fix(term, call.why)
        part = Leaf(length, call.why)
    dims[dim] = Dim(part, dims[dim].places)
    return [tuple(dims)]


@rule("select")
def _select(call: Call) -> Sequence[Dims]:
    dims = [*call.dims(call.args[0])]
    call.over(dims.pop(call.args[1]), "is indexed one by one")
    return [tuple(dims)]


@rule("unbind")
def _unbind(call: Call) -> Sequence[Dims]:
    dims = [*call.dims(call.args[0])]
    call.over(dims.pop(call.arg(1, "dim", 0)), "is indexed one by one")
    return [tuple(dims)] * len(call.results)


@rule("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk")
def _split(call: Call) -> Sequence[Dims]:
    dims = call.dims(call.args[0])
    dim = call.arg(2, "dim", 0) % len(dims)
    rest, found = dims[dim].term, []
    for result in call.results:
        size = result.shape[dim]
        try:
            part, rest = split(rest, size)
        except Apart:
            fix(dims[dim].term, call.why)
            part, rest = Leaf(size, call.why), Leaf(rest.size - size, call.why)
        found.append((*dims[:dim], Dim(part, dims[dim].places), *dims[dim + 1 :]))
    return found


# --- joining -------------------------------------------------------------------------------------------


@rule("cat", "concat", "concatenate")
def _cat(call: Call) -> Sequence[Dims]:
    shape = call.results[0].shape
    tensors = [tensor for tensor in call.args[0] if tensor.ndim == len(shape)]  # an empty list's tensor is 1-d
    dim = call.arg(1, "dim", 0) % len(shape)
    found = []
    for index in range(len(shape)):
        each = [call.dims(tensor)[index] for tensor in tensors]
        if index == dim:
            places = frozenset[Any]().union(*(one.places for one in each))
            found.append(Dim(sum_of([one.term for one in each]), places))
        else:
            for other in each[1:]:
                call.unify(each[0], other)
            found.append(each[0])
    return [tuple(found)]


@rule("stack")
def _stack(call: Call) -> Sequence[Dims]:
    shape = call.results[0].shape
    dim = call.arg(1, "dim", 0) % len(shape)
    inner = (*shape[:dim], *shape[dim + 1 :])
    dims = [*_broadcast(call, call.args[0], inner)]
    dims.insert(dim, _fresh(shape[dim], f"is stacked one by one in {call.trace.where}"))
    return [tuple(dims)]


@rule("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d")
def _pad(call: Call) -> Sequence[Dims]:
    dims, pads = [*call.dims(call.args[0])], call.arg(1, "pad")
    reason = f"is padding in {call.trace.where}"
    for index in range(len(pads) // 2):
        before, after = pads[2 * index : 2 * index + 2]
        dim = dims[-1 - index]
        if not before and not after:
            continue
        if before < 0 or after < 0 or call.name != "constant_pad_nd":
            fix(dim.term, call.why)
            dims[-1 - index] = _fresh(dim.term.size + before + after, call.why)
        else:
            dims[-1 - index] = Dim(sum_of([Leaf(before, reason), dim.term, Leaf(after, reason)]), dim.places)
    return [tuple(dims)]


# --- products ------------------------------------------------------------------------------------------


@rule("mm")
def _mm(call: Call) -> Sequence[Dims]:
    return [_product(call, *call.args[:2])]


@rule("addmm", "addmv", "baddbmm")
def _addmm(call: Call) -> Sequence[Dims]:
    bias, one, other = call.args[:3]
    dims = _product(call, one, other)
    shape = call.results[0].shape
    for dim, theirs in zip(_broadcast(call, [bias], shape), dims, strict=True):
        call.unify(dim, theirs)
    return [dims]


@rule("mv", "dot", "bmm", "vdot")
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
        if not call.trace.is_weight(one) and not call.trace.is_weight(other):
            call.trace.findings.heads.append(ours[0].term)
    rows = [] if one.ndim == 1 else [ours[-2]]
    return (*batch, *rows, *([] if vector else [theirs[-1]]))


@rule("_trilinear")
def _trilinear(call: Call) -> Sequence[Dims]:
    """As `bilinear` calls it: one `[b, 1, i, 1]`, weight `[1, o, i, j]`, two `[b, 1, 1, j]`, by their dims."""
    one, two, three, expand1, expand2, expand3, summed = call.args[:7]
    dims = []
    total = one.ndim + len(expand1)
    for tensor, added in ((one, expand1), (two, expand2), (three, expand3)):
        own = [*enumerate(call.dims(tensor))]
        dims.append([None if index in added else own.pop(0) for index in range(total)])
    weight = [call.trace.is_weight(tensor) for tensor in (one, two, three)]
    found = []
    for index in range(total):
        here = [(entry[index], tensor, heavy) for entry, tensor, heavy in zip(dims, (one, two, three), weight)]
        present = [(at[1], heavy) for at, _, heavy in here if at is not None]
        first = present[0]
        for later in present[1:]:
            if index in summed:
                call.trace.contract(first[0], later[0], first[1], later[1], call.why)
            else:
                call.unify(first[0], later[0])
        if index not in summed:
            found.append(first[0])
    return [tuple(found)]


@rule("convolution", "_convolution", "convolution_overrideable")
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
    for dim in kernel[2:]:
        call.over(dim, "is the size of a kernel")
    reason = f"is space in {call.trace.where}"
    return [(*batch, leaving, *(_fresh(size, reason) for size in result.shape[channel + 1 :]))]


def _grouped(call: Call, entering: Dim, kernel: Dims, groups: int, transposed: bool) -> Dim:
    heavy = call.trace.is_weight(call.args[1])
    light = call.trace.is_weight(call.args[0])
    try:
        outer, inner = factor(entering.term, groups)
        if transposed:
            ours, read = factor(kernel[0].term, groups)
            leaving = Dim(product_of([ours, kernel[1].term]), kernel[1].places)
            reading = Dim(read, kernel[0].places)
        else:
            ours, _ = factor(kernel[0].term, groups)
            leaving, reading = kernel[0], kernel[1]
    except Apart:
        for dim in (entering, *kernel[:2]):
            fix(dim.term, call.why)
        return _fresh(call.results[0].shape[-(len(kernel) - 2) - 1], call.why)
    unify(outer, ours, call.why)
    call.divides(outer)
    call.trace.contract(Dim(inner), reading, light, heavy and inner.size > 1, call.why)
    return leaving


# --- normalisation -------------------------------------------------------------------------------------


@rule(
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
        found.append((dims[1],) if fits else tuple(map(_fresh, result.shape)))
    return found


@rule("native_layer_norm", "_fused_rms_norm")
def _layer_norm(call: Call) -> Sequence[Dims]:
    x = call.args[0]
    dims, shape = call.dims(x), call.args[1]
    what = "RMSNorm" if "rms" in call.name else "LayerNorm"
    for dim in dims[-len(shape) :]:
        call.over(dim, f"{what} takes the mean over it")
    for tensor in call.tensors[1:]:
        for one, other in zip(dims[-len(shape) :], call.dims(tensor), strict=True):
            call.unify(one, other)
    rest = [
        tuple(dim if dim.term.size == size else _fresh(size) for dim, size in zip(dims, result.shape))
        for result in call.results[1:]
    ]
    return [dims, *rest]


@rule("native_group_norm")
def _group_norm(call: Call) -> Sequence[Dims]:
    x, groups = call.args[0], call.args[6]
    channels = call.dims(x)[1]
    try:
        outer, inner = factor(channels.term, groups)
        fix(inner, f"GroupNorm takes the mean over it in {call.trace.where}")
    except Apart:
        outer = Leaf(groups, call.why)
        fix(channels.term, call.why)
    call.divides(outer)
    for tensor in call.tensors[1:]:
        call.unify(channels, call.dims(tensor)[0])
    batch = call.dims(x)[0]
    return [call.dims(x), *[(batch, Dim(outer))] * 2]


# --- reductions ----------------------------------------------------------------------------------------

HEARD_AS_ONE = {
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


@rule("sum", "nansum", "linalg_vector_norm", "norm", "any", "all", "count_nonzero", *HEARD_AS_ONE)
def _reduce(call: Call) -> Sequence[Dims]:
    x, which = call.args[0], call.arg(2 if "norm" in call.name else 1, "dim")
    if call.name in ("max", "min") and len(call.tensors) == 2:
        return _pointwise(call)
    dims = call.dims(x)
    which = [which] if isinstance(which, int) else which
    gone = {index % len(dims) for index in which} if which and dims else set(range(len(dims)))
    for index in gone:
        if call.name in HEARD_AS_ONE:
            call.over(dims[index], HEARD_AS_ONE[call.name])
    found = []
    for result in call.results:
        if result.ndim == len(dims):
            kept = [_fresh(1) if index in gone else dim for index, dim in enumerate(dims)]
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
    "flip": "is turned round",
    "roll": "is turned",
    "logcumsumexp": "is summed up in order",
}


@rule(*ALONG)
def _along(call: Call) -> Sequence[Dims]:
    """Along one dimension (or some) entries meet; the shape stays."""
    dims = call.dims(call.args[0])
    which = call.arg(2 if call.name == "roll" else 1, "dims" if call.name in ("flip", "roll") else "dim", -1)
    for index in [which] if isinstance(which, int) else which or range(len(dims)):
        if dims:
            call.over(dims[index], ALONG[call.name])
    return [dims] * len(call.results)


@rule("topk", "kthvalue")
def _topk(call: Call) -> Sequence[Dims]:
    dims = [*call.dims(call.args[0])]
    index = call.arg(2, "dim", -1)
    call.over(dims[index], "the largest of it are taken")
    shape = call.results[0].shape
    if len(shape) == len(dims):
        dims[index] = _fresh(shape[index], call.why)
    else:
        dims.pop(index)
    return [tuple(dims)] * len(call.results)


@rule("tril", "triu")
def _triangle(call: Call) -> Sequence[Dims]:
    dims = call.dims(call.args[0])
    for dim in dims[-2:]:
        call.over(dim, f"a triangle of it is taken by {call.name}")
    return [dims]


# --- space ---------------------------------------------------------------------------------------------

_POOLS = {
    "max_pool1d": 1,
    "max_pool2d": 2,
    "max_pool3d": 3,
    "max_pool2d_with_indices": 2,
    "max_pool3d_with_indices": 3,
    "avg_pool1d": 1,
    "avg_pool2d": 2,
    "avg_pool3d": 3,
    "_adaptive_avg_pool2d": 2,
    "_adaptive_avg_pool3d": 3,
    "adaptive_avg_pool1d": 1,
    "adaptive_max_pool1d": 1,
    "adaptive_max_pool2d": 2,
    "adaptive_max_pool3d": 3,
    "fractional_max_pool2d": 2,
    "upsample_nearest1d": 1,
    "upsample_nearest2d": 2,
    "upsample_nearest3d": 3,
    "_upsample_nearest_exact1d": 1,
    "_upsample_nearest_exact2d": 2,
    "_upsample_nearest_exact3d": 3,
    "upsample_linear1d": 1,
    "upsample_bilinear2d": 2,
    "_upsample_bilinear2d_aa": 2,
    "upsample_bicubic2d": 2,
    "_upsample_bicubic2d_aa": 2,
    "upsample_trilinear3d": 3,
    "grid_sampler_2d": 2,
}


@rule(*_POOLS)
def _pool(call: Call) -> Sequence[Dims]:
    """The last dimensions change as a picture does; those before stay."""
    dims, space = call.dims(call.args[0]), _POOLS[call.name]
    reason = f"{call.name} takes it as space"
    for dim in dims[-space:]:
        call.over(dim, reason)
    return [
        (*dims[:-space], *(_fresh(size, reason) for size in result.shape[-space:])) for result in call.results
    ]


# --- indexing ------------------------------------------------------------------------------------------


@rule("embedding")
def _embedding(call: Call) -> Sequence[Dims]:
    weight, index = call.args[:2]
    rows, *columns = call.dims(weight)
    call.over(rows, "is looked up by index")
    for column in columns:
        call.trace.findings.feeding |= column.places
    return [(*call.dims(index), *columns)]


@rule("_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(call: Call) -> Sequence[Dims]:
    rows, columns = call.dims(call.args[0])
    call.over(rows, "is looked up by index")
    call.trace.findings.feeding |= columns.places
    first, *others = call.results
    return [(_fresh(first.shape[0]), columns), *(tuple(map(_fresh, other.shape)) for other in others)]


@rule("index_select")
def _index_select(call: Call) -> Sequence[Dims]:
    dims = [*call.dims(call.args[0])]
    index = call.args[1]
    call.over(dims[index], "is looked up by index")
    dims[index] = call.dims(call.args[2])[0] if call.args[2].ndim else _fresh(1)
    return [tuple(dims)]


@rule("index", "_unsafe_index")
def _index(call: Call) -> Sequence[Dims]:
    dims, indices = call.dims(call.args[0]), call.args[1]
    if any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in indices):
        return _unknown(call)
    given = [at for at, each in enumerate(indices) if each is not None]
    for at in given:
        call.over(dims[at], "is looked up by index")
    tensors = [indices[at] for at in given]
    shape = torch.broadcast_shapes(*(each.shape for each in tensors))
    looked = _broadcast(call, tensors, shape)
    kept = [(at, dim) for at, dim in enumerate(dims) if at not in given]
    adjacent = given == [*range(given[0], given[-1] + 1)]
    before = [dim for at, dim in kept if adjacent and at < given[0]]
    after = [dim for at, dim in kept if not (adjacent and at < given[0])]
    return [(*before, *looked, *after)]


@rule("gather", "scatter", "scatter_add", "scatter_reduce", "take_along_dim")
def _gather(call: Call) -> Sequence[Dims]:
    """Along `dim` by index; along the others entry by entry, where all of them are taken."""
    target, at, result = call.args[0], call.args[1], call.results[0]
    dims = call.dims(result) if call.trace.is_known(result) else None
    found = [*(dims or [_fresh(size) for size in result.shape])]
    for tensor in call.tensors:
        if tensor.ndim != target.ndim:
            return _unknown(call)
        for index, dim in enumerate(call.dims(tensor)):
            if index == at % target.ndim:
                call.over(dim, f"is looked up by {call.name}")
            elif dim.term.size == found[index].term.size:
                call.unify(found[index], dim)
            else:
                call.over(dim, f"is taken in part by {call.name}")
                fix(found[index].term, call.why)
    fix(found[at].term, call.why)
    return [tuple(found)]


@rule("zeros", "ones", "empty", "full", "rand", "randn", "randint", "arange", "eye", "linspace", "scalar_tensor")
def _factory(call: Call) -> Sequence[Dims]:
    return _created(call)


__all__ = ["Call", "Sum", "Term", "describe", "expand", "find"]
