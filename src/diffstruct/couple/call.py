"""A call of an operator, and what the rules for operators are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diffstruct.couple.findings import Average, Dim
from diffstruct.couple.terms import Leaf, Term, fix, unify
from diffstruct.couple.tracing_state import TracingState

Dims = tuple[Dim, ...]


@dataclass(frozen=True)
class Call:
    """One call of an operator, with what it returned.

    Args:
        state: what is known of the tensors so far.
        func: the operator, an overload.
        args: its positional arguments.
        kwargs: its keyword arguments.
        tensors: all tensors among the arguments, in order, also those in lists.
        results: the tensors that it returned.
    """

    state: TracingState
    func: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    tensors: Sequence[Tensor]
    results: Sequence[Tensor]

    @property
    def name(self) -> str:
        """The operator's name without namespace and overload; an in-place form has the name of the other."""
        return name_of(self.func).removesuffix("_")

    @property
    def why(self) -> str:
        """The reason for all that is fixed here."""
        return f"does not come through {self.name} in {self.state.where} unit by unit"

    def dims(self, tensor: Tensor) -> Dims:
        """The dimensions of a tensor among the arguments."""
        return self.state.dims(tensor)

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """An argument, given by position or by name."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)

    def unify(self, one: Dim, other: Dim) -> None:
        """Let both be one axis."""
        unify(one.term, other.term, self.why)

    def fix(self, dim: Dim, what: str) -> None:
        """Fix a dimension because of what the operator does to it."""
        fix(dim.term, f"{what} in {self.state.where}")

    def averages(self, dim: Dim, what: str, centred: bool, eps: float | None = None) -> None:
        """Note that a dimension is averaged over; outside of modules, fix it. See `findings.Average`."""
        if self.state.stack:
            reason, module = f"{what} in {self.state.where}", self.state.stack[-1]
            behind = self.state.bent.get(id(self.args[0]))
            average = Average(dim, module, reason, centred, id(self.results[0]), eps, behind)
            self.state.averages.append(average)
        else:
            self.fix(dim, what)

    def divides(self, groups: Term) -> None:
        """Note that the module that runs divides its channels into `groups`."""
        if self.state.stack:
            self.state.findings.groups[self.state.stack[-1]] = groups

    def contract(self, one: tuple[Tensor, int], other: tuple[Tensor, int]) -> None:
        """Sum over a dimension of one tensor times that of another."""
        (a, i), (b, j) = one, other
        weight = self.state.is_weight
        self.state.contract(self.dims(a)[i], self.dims(b)[j], weight(a), weight(b), self.why)


OpRule = Callable[[Call], Sequence[Dims]]
"""Takes a call and returns the dimensions of each result; unifies and fixes dimensions on the way."""

OP_RULES: dict[str, OpRule] = {}


def op_rule(*names: str) -> Callable[[OpRule], OpRule]:
    """Register a rule for the operators of these names, and their in-place forms."""

    def register(function: OpRule) -> OpRule:
        for name in names:
            OP_RULES[name] = function
        return function

    return register


def name_of(func: Any) -> str:
    """The name of an operator without namespace and overload."""
    return str(func._schema.name).partition("::")[2]


def unknown(call: Call) -> Sequence[Dims]:
    """Fix everything: nothing is known of this operator."""
    return fix_all(call, "which is not known to treat units one by one")


def fix_all(call: Call, why: str) -> Sequence[Dims]:
    """Fix every dimension of all tensors of a call."""
    reason = f"goes through {call.func} in {call.state.where}, {why}"
    for tensor in call.tensors:
        for dim in call.dims(tensor):
            fix(dim.term, reason)
    return [tuple(fresh(size, reason) for size in result.shape) for result in call.results]


def fresh(size: int, reason: str | None = None) -> Dim:
    """A dimension of which nothing else is known; with a reason, it is fixed."""
    return Dim(Leaf(size, reason))


def created(call: Call) -> Sequence[Dims]:
    """The dimensions of new tensors, whose sizes are Python integers."""
    return [tuple(map(fresh, result.shape)) for result in call.results]


def broadcast(call: Call, tensors: Sequence[Tensor], shape: Sequence[int]) -> Dims:
    """The dimensions of a result that is computed from `tensors` entry by entry."""
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
