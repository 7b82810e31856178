"""A call of an operator, and what rules about operators are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diffstruct.couple.terms import Leaf, Term, fix, unify
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


def unknown(call: Call) -> Sequence[Dims]:
    """Fix everything: nothing is known of this operator."""
    reason = f"goes through {call.func} in {call.trace.where}, which is not known to treat units one by one"
    for tensor in call.tensors:
        for dim in call.dims(tensor):
            fix(dim.term, reason)
    return [tuple(Dim(Leaf(size, reason)) for size in result.shape) for result in call.results]


def fresh(size: int, reason: str | None = None) -> Dim:
    """A dimension of which nothing else is known."""
    return Dim(Leaf(size, reason))


def created(call: Call) -> Sequence[Dims]:
    """New tensors, whose sizes are Python's integers."""
    return [tuple(map(fresh, result.shape)) for result in call.results]


def broadcast(call: Call, tensors: Sequence[Tensor], shape: Sequence[int]) -> Dims:
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
    return tuple(dim or fresh(size) for dim, size in zip(found, shape, strict=True))
