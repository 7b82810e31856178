"""Run a model once and find out, operator by operator, which dimensions are the same.

`Trace` sees every ATen operator below autograd, with the real tensors, and asks `operators` what it says of
their dimensions. Only dimensions matter; values flow as they always do, so control flow that depends on data
is no obstacle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffstruct.couple.terms import Leaf, Term, fix, leaves, unify

TURNED_IN_PLACE = {f"aten::{name}_" for name in ("t", "transpose", "squeeze", "unsqueeze")}
"""Operators that give a tensor other dimensions without making a new one."""


class Place(NamedTuple):
    """A dimension of a parameter or buffer: `module.name`, dimension `dim`."""

    module: nn.Module
    name: str
    dim: int


class Dim(NamedTuple):
    """A dimension of a tensor that the model computes.

    `places` says which dimensions of parameters it is, if the tensor was computed from parameters alone.
    """

    term: Term
    places: frozenset[Place] = frozenset()


@dataclass
class Findings:
    """What the trace of a model found."""

    places: dict[Place, Leaf] = field(default_factory=dict)
    """Every dimension of every parameter and buffer, in the order in which the model has them."""
    reading: set[Place] = field(default_factory=set)
    """Those that are summed over against what the network computes: weights that read units."""
    feeding: set[Place] = field(default_factory=set)
    """Those of `reading` that feed units as well, as the weights of a tied embedding do."""
    used: dict[int, None] = field(default_factory=dict)
    """The ids of the parameters and buffers that took part, in the order in which they did."""
    heads: list[Term] = field(default_factory=list)
    """What two activations have in common where they are multiplied (attention heads)."""
    inner: list[Term] = field(default_factory=list)
    """What such a product sums over (the width of a head)."""
    groups: dict[nn.Module, Term] = field(default_factory=dict)
    """The groups of each module that divides its channels into some."""
    entered: dict[nn.Module, Dim] = field(default_factory=dict)
    """The channels that each module was given first."""


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The mode under which the model runs.

    Args:
        findings: what to add to.
        names: the path of each module, for reasons.
    """

    def __init__(self, findings: Findings, names: Mapping[nn.Module, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.findings, self.names = findings, names
        self.stack: list[nn.Module] = []
        self._known: dict[int, tuple[Tensor, tuple[Dim, ...], bool]] = {}

    def declare(self, tensor: Tensor, dims: Iterable[Dim], weight: bool = False) -> None:
        """Say what the dimensions of `tensor` are; the tensor is kept alive, so that its id stays its own."""
        self._known[id(tensor)] = tensor, tuple(dims), weight

    def dims(self, tensor: Tensor) -> tuple[Dim, ...]:
        """The dimensions of `tensor`. One that nobody declared does not change with the model."""
        if id(tensor) not in self._known:
            reason = f"is that of a tensor in {self.where} that is neither parameter nor buffer"
            self.declare(tensor, [Dim(Leaf(size, reason)) for size in tensor.shape])
        return self._known[id(tensor)][1]

    def is_weight(self, tensor: Tensor) -> bool:
        """Whether `tensor` was computed from parameters and buffers alone."""
        return id(tensor) in self._known and self._known[id(tensor)][2]

    def is_known(self, tensor: Tensor) -> bool:
        """Whether the dimensions of `tensor` have been declared."""
        return id(tensor) in self._known

    @property
    def where(self) -> str:
        """The module that runs."""
        module = self.stack[-1] if self.stack else None
        if module is None:
            return "the model"
        name, kind = self.names.get(module), type(module).__name__
        return f"{name} ({kind})" if name else kind

    def contract(self, one: Dim, other: Dim, one_is_weight: bool, other_is_weight: bool, why: str) -> None:
        """Note that a product sums over `one` of its first factor and `other` of its second."""
        unify(one.term, other.term, why)
        if one_is_weight and other_is_weight:
            # One of them stands for units, as a learned initial state does: the first, as torch multiplies.
            # With a buffer (that of spectral norm, say) no unit is read.
            self.findings.reading |= other.places if one.places else frozenset()
        elif one_is_weight or other_is_weight:
            self.findings.reading |= one.places if one_is_weight else other.places
        else:
            self.findings.inner.append(one.term)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        from diffstruct.couple.call import Call  # which needs what is defined here
        from diffstruct.couple.registry import describe, expand

        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for tensor in tensors:
            self.findings.used.setdefault(id(tensor))
        inner = expand(func)
        if inner is not None:
            with self:
                return inner(*args, **kwargs)
        result = func(*args, **kwargs)
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if not results:
            return result
        described = describe(Call(self, func, args, kwargs, tensors, results))
        weight = bool(tensors) and all(map(self.is_weight, tensors))
        for tensor, dims in zip(results, described, strict=True):
            assert [dim.term.size for dim in dims] == [*tensor.shape], (func, dims, tensor.shape)
            if func.name().partition(".")[0] in TURNED_IN_PLACE:
                self.declare(tensor, dims, weight)
            elif self.is_known(tensor):  # written in place, or handed through
                for old, new in zip(self.dims(tensor), dims, strict=True):
                    unify(old.term, new.term, f"{func} in {self.where} writes into it")
            else:
                self.declare(tensor, dims if weight else [Dim(dim.term) for dim in dims], weight)
        return result


@contextmanager
def _plainly(model: nn.Module, trace: Trace) -> Any:
    """Let operators come one by one, and keep note of the module that runs."""

    def enter(module: nn.Module, args: Any) -> None:
        trace.stack.append(module)
        if args and isinstance(args[0], Tensor) and trace.is_known(args[0]) and args[0].ndim > 1:
            trace.findings.entered.setdefault(module, trace.dims(args[0])[1])

    def leave(module: nn.Module, args: Any, result: Any) -> None:
        if trace.stack:
            trace.stack.pop()

    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        for hook in (
            nn.modules.module.register_module_forward_pre_hook(enter),
            nn.modules.module.register_module_forward_hook(leave),
        ):
            stack.callback(hook.remove)
        stack.callback(lambda: torch.backends.mha.set_fastpath_enabled(fast))
        torch.backends.mha.set_fastpath_enabled(False)
        onednn = torch._C._get_mkldnn_enabled()
        stack.callback(lambda: torch._C._set_mkldnn_enabled(onednn))
        torch._C._set_mkldnn_enabled(False)
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.enable_grad())  # without gradients torch takes other, fused paths
        yield


def trace(model: nn.Module, run: Callable[[], Any], inputs: Any, findings: Findings) -> None:
    """Run the model once and add to `findings` what that shows.

    Args:
        model: whose parameters and buffers are meant.
        run: runs it.
        inputs: what `run` hands to it, in any nesting.
        findings: added to.
    """
    mode = Trace(findings, {module: name for name, module in model.named_modules()})
    for tensor, owners in _owners(model).values():
        dims = []
        for dim, size in enumerate(tensor.shape):
            places = [Place(module, name, dim) for module, name in owners]
            leaf = findings.places.get(places[0]) or Leaf(size)
            findings.places.update(dict.fromkeys(places, leaf))
            parameter = isinstance(tensor, nn.Parameter)
            dims.append(Dim(leaf, frozenset(places if parameter else ())))
        mode.declare(tensor, dims, weight=True)
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            embedding = Place(module, "in_proj_weight" if module._qkv_same_embed_dim else "q_proj_weight", 1)
            projected = Place(module.out_proj, "weight", 0)
            unify(findings.places[projected], findings.places[embedding], "")  # both are its embed_dim
    for tensor in tree_leaves(inputs):
        if isinstance(tensor, Tensor) and not mode.is_known(tensor):
            mode.declare(tensor, [Dim(Leaf(size, "is a dimension of the input")) for size in tensor.shape])
    with _plainly(model, mode), mode:
        outputs = run()
    for tensor in tensors_in(outputs):
        for leaving in mode.dims(tensor):
            fix(leaving.term, "is a dimension of the output")


def _owners(model: nn.Module) -> dict[int, tuple[Tensor, list[tuple[nn.Module, str]]]]:
    """Every parameter and buffer once, with all that call it theirs."""
    found: dict[int, tuple[Tensor, list[tuple[nn.Module, str]]]] = {}
    for module in model.modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                found.setdefault(id(tensor), (tensor, []))[1].append((module, name))
    return found


def tensors_in(outputs: Any) -> list[Tensor]:
    """The tensors that a model returned, in nested sequences, mappings and dataclasses.

    Other objects, such as a cache of keys and values, are the model's own business and may change.
    """
    if isinstance(outputs, Tensor):
        return [outputs]
    inner: Iterable[Any] = ()
    if isinstance(outputs, Mapping):
        inner = outputs.values()
    elif isinstance(outputs, (tuple, list)):
        inner = outputs
    elif is_dataclass(outputs) and not isinstance(outputs, type):
        inner = [getattr(outputs, each.name) for each in fields(outputs)]
    return [tensor for each in inner for tensor in tensors_in(each)]


__all__ = ["Dim", "Findings", "Place", "Trace", "leaves", "tensors_in", "trace"]
