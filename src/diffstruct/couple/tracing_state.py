"""What is known while a model runs: the dimensions of each tensor so far, and the module that runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from diffstruct.couple.findings import Average, Dim, Findings, Meeting
from diffstruct.couple.terms import Leaf, unify


class TracingState:
    """The dimensions of every tensor that a model has computed so far.

    Args:
        findings: what to add to.
        names: the path of each module, for reasons.
    """

    def __init__(self, findings: Findings, names: Mapping[nn.Module, str]) -> None:
        self.findings, self.names = findings, names
        self.stack: list[nn.Module] = []
        self.squares: set[int] = set()
        """The ids of tensors that are squares, entry by entry."""
        self.bent: dict[int, str] = {}
        """By the id of a tensor what stands between it and the weights that write it; see `bends`."""
        self.averages: list[Average] = []
        """Dimensions that are averaged over by modules."""
        self.consumed: set[int] = set()
        """The ids of tensors that something was computed from, or that the model returned."""
        self.draws = False
        """Whether random numbers were drawn."""
        self._known: dict[int, tuple[Tensor, tuple[Dim, ...], bool]] = {}

    def declare(self, tensor: Tensor, dims: Iterable[Dim], weight: bool = False) -> None:
        """Record the dimensions of `tensor`; the tensor is kept alive, so that its id stays its own."""
        self._known[id(tensor)] = tensor, tuple(dims), weight

    def dims(self, tensor: Tensor) -> tuple[Dim, ...]:
        """The dimensions of `tensor`. A tensor that was never declared does not change with the model."""
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
            self.findings.inner.append(Meeting(one.term, one.places, other.places))
