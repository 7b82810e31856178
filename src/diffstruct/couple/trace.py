"""Run a model once and find out, operator by operator, which dimensions are the same.

`Trace` sees every ATen operator below autograd, with the real tensors, and asks `registry` for the
dimensions of what it returns. Only dimensions matter; values flow as they always do, so control flow that
depends on data is no obstacle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffstruct.couple.bends import bend
from diffstruct.couple.call import Call, Dims
from diffstruct.couple.findings import Dim, Findings, Place, coarsest
from diffstruct.couple.registry import describe, expand, rule_failed
from diffstruct.couple.terms import Leaf, fix, product_of, unify
from diffstruct.couple.tracing_state import TracingState
from diffstruct.couple.unfused import unfused
from diffstruct.interrupts import allowed
from diffstruct.nn.outputs import tensors_in

TURNED_IN_PLACE = {f"aten::{name}_" for name in ("t", "transpose", "squeeze", "unsqueeze")}
"""Operators that give a tensor other dimensions without making a new one."""


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The mode under which the model runs.

    Args:
        state: records the dimensions of all tensors.
    """

    def __init__(self, state: TracingState) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.state = state

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for tensor in tensors:
            self.state.findings.used.setdefault(id(tensor))
            self.state.consumed.add(id(tensor))
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.state.draws = True
        failure = None
        simpler = expand(func)
        if simpler is not None:
            try:
                with self:
                    result = simpler(*args, **kwargs)
                if result is not NotImplemented:
                    return result
            except Exception as error:  # if it is the model's, `func` raises it again
                failure = error
        result = func(*args, **kwargs)
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if results:
            self.state.findings.coarsest = coarsest(
                [self.state.findings.coarsest, *_rounded(tensors, results)]
            )
            call = Call(self.state, func, args, kwargs, tensors, results)
            self._record(call, describe(call) if failure is None else rule_failed(call, failure))
        return result

    def _record(self, call: Call, described: Sequence[Dims]) -> None:
        """Declare the results of a call."""
        state = self.state
        weight = bool(call.tensors) and all(map(state.is_weight, call.tensors))
        why = bend(call)
        if why is not None:
            state.bent.update((id(tensor), why) for tensor in call.results)
        for tensor, dims in zip(call.results, described, strict=True):
            if call.func.name().partition(".")[0] in TURNED_IN_PLACE:
                state.declare(tensor, dims, weight)
            elif state.is_known(tensor):  # written in place, or returned as it is
                reason = f"{call.func} in {state.where} writes into it"
                old = state.dims(tensor)
                if [dim.term.size for dim in old] == [*tensor.shape]:
                    for before, after in zip(old, dims, strict=True):
                        unify(before.term, after.term, reason)
                    if not state.is_weight(tensor):  # what was written is now written by these weights, too
                        both = zip(old, dims, strict=True)
                        state.declare(
                            tensor, [Dim(one.term, one.places | other.places) for one, other in both]
                        )
                else:  # resized in place
                    for dim in (*old, *dims):
                        fix(dim.term, reason)
                    state.declare(tensor, dims)
            else:
                state.declare(tensor, dims, weight)


def _rounded(tensors: Sequence[Tensor], results: Sequence[Tensor]) -> Iterator[torch.dtype]:
    """The types of results that are coarser than what they are computed from."""
    for result in results:
        if result.is_floating_point():
            for tensor in tensors:
                if tensor.is_floating_point() and coarsest([tensor.dtype, result.dtype]) != tensor.dtype:
                    yield result.dtype


@contextmanager
def _operator_by_operator(state: TracingState) -> Iterator[None]:
    """Switch fused kernels off, and keep note of the module that runs."""

    def enter(module: nn.Module, args: Any) -> None:
        state.stack.append(module)
        if args and isinstance(args[0], Tensor) and state.is_known(args[0]) and args[0].ndim > 1:
            state.findings.entered.setdefault(module, state.dims(args[0])[1])

    def leave(module: nn.Module, args: Any, result: Any) -> None:
        if state.stack:
            state.stack.pop()

    with ExitStack() as stack:
        for hook in (
            nn.modules.module.register_module_forward_pre_hook(enter),
            nn.modules.module.register_module_forward_hook(leave),
        ):
            stack.callback(hook.remove)
        stack.enter_context(unfused())
        yield


def trace(model: nn.Module, run: Callable[[], Any], inputs: Any, findings: Findings) -> None:
    """Run the model once and add to `findings` what that shows.

    Args:
        model: whose parameters and buffers are meant.
        run: runs it.
        inputs: the arguments with which `run` calls it, in any nesting.
        findings: added to.
    """
    state = TracingState(findings, {module: name for name, module in model.named_modules()})
    for tensor, owners in _owners(model).values():
        dims = []
        for dim, size in enumerate(tensor.shape):
            places = [Place(module, name, dim) for module, name in owners]
            leaf = findings.places.get(places[0]) or Leaf(size)
            findings.places.update(dict.fromkeys(places, leaf))
            parameter = isinstance(tensor, nn.Parameter)
            dims.append(Dim(leaf, frozenset(places if parameter else ())))
        state.declare(tensor, dims, weight=True)
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention) and module not in findings.attention:
            _heads_and_their_width(module, findings)
    for tensor in tree_leaves(inputs):
        if isinstance(tensor, Tensor) and not state.is_known(tensor):
            state.declare(tensor, [Dim(Leaf(size, "is a dimension of the input")) for size in tensor.shape])
    with _operator_by_operator(state), Trace(state), allowed():
        outputs = run()
    findings.draws |= state.draws and not any(module.training for module in model.modules())
    for tensor in tensors_in(outputs):
        state.consumed.add(id(tensor))
        for leaving in state.dims(tensor):
            fix(leaving.term, "is a dimension of the output")
    # Nobody looks at some, such as the mean of all heads' weights that `nn.MultiheadAttention` returns.
    findings.averages += [each for each in state.averages if each.result in state.consumed]


def _heads_and_their_width(module: nn.MultiheadAttention, findings: Findings) -> None:
    """Cut a module's `embed_dim` into heads: its code reads and writes as many channels as these have."""
    heads, width = Leaf(module.num_heads), Leaf(module.head_dim)
    findings.attention[module] = heads, width
    inner = product_of([heads, width])
    packed = product_of([Leaf(3, "holds queries, keys and values"), inner])
    for owner, name, dim, term in (
        (module, "in_proj_weight", 0, packed),
        (module, "in_proj_weight", 1, inner),
        (module, "in_proj_bias", 0, packed),
        (module, "q_proj_weight", 0, inner),
        (module, "q_proj_weight", 1, inner),
        (module, "k_proj_weight", 0, inner),
        (module, "v_proj_weight", 0, inner),
        (module, "bias_k", 2, inner),
        (module, "bias_v", 2, inner),
        (module.out_proj, "weight", 0, inner),
        (module.out_proj, "weight", 1, inner),
    ):
        place = Place(owner, name, dim)
        if place in findings.places:
            unify(findings.places[place], term, "does not consist of heads")


def _owners(model: nn.Module) -> dict[int, tuple[Tensor, list[tuple[nn.Module, str]]]]:
    """Every parameter and buffer once, with all modules that own it and its name there."""
    found: dict[int, tuple[Tensor, list[tuple[nn.Module, str]]]] = {}
    for module in model.modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                found.setdefault(id(tensor), (tensor, []))[1].append((module, name))
    return found
