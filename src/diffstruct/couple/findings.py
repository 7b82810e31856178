"""What a trace finds: dimensions, the places that they lie in, and which weights read and feed units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffstruct.couple.terms import Leaf, Term


class Place(NamedTuple):
    """A dimension of a parameter or buffer: `module.name`, dimension `dim`."""

    module: nn.Module
    name: str
    dim: int

    @property
    def tensor(self) -> Tensor:
        """The parameter or buffer."""
        tensor: Tensor = getattr(self.module, self.name)
        return tensor

    @property
    def tensor_id(self) -> int:
        """The id of the parameter or buffer."""
        return id(self.tensor)

    def path(self, names: Mapping[nn.Module, str]) -> str:
        """The place by the module's name in the model, `layer.weight[0]`."""
        name = names[self.module]
        return f"{name}.{self.name}[{self.dim}]" if name else f"{self.name}[{self.dim}]"


class Dim(NamedTuple):
    """A dimension of a tensor that the model computes.

    `places` are the dimensions of parameters that it is, if the tensor was computed from parameters alone;
    else they are those of the weights that write it, and of gains and biases behind these, as far as known.
    """

    term: Term
    places: frozenset[Place] = frozenset()


@dataclass(frozen=True)
class Average:
    """A dimension that is averaged over, as normalisations do.

    Args:
        dim: the dimension.
        module: the module that runs.
        reason: why it cannot be learned, if it is no normalisation.
        centred: whether it is the mean of the values themselves, or of their deviations, rather than of their
            squares.
        result: the id of what the operator returned.
        eps: what is added to the variance, where the operator says it.
        behind: what stands between it and the weights that write it, so that the mean of the channels there
            is not their mean here; see `bends`.
    """

    dim: Dim
    module: nn.Module
    reason: str
    centred: bool
    result: int
    eps: float | None = None
    behind: str | None = None

    @property
    def term(self) -> Term:
        """What the dimension is."""
        return self.dim.term


class Meeting(NamedTuple):
    """A dimension that a product of two activations sums over, as that of queries and keys does.

    `one` and `other` are the places of the weights that write it in the first and in the second factor.
    """

    term: Term
    one: frozenset[Place]
    other: frozenset[Place]


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
    inner: list[Meeting] = field(default_factory=list)
    """What such a product sums over (the width of a head)."""
    attention: dict[nn.Module, tuple[Term, Term]] = field(default_factory=dict)
    """The heads of each `nn.MultiheadAttention`, and their width."""
    groups: dict[nn.Module, Term] = field(default_factory=dict)
    """The groups of each module that divides its channels into some."""
    entered: dict[nn.Module, Dim] = field(default_factory=dict)
    """The channels of the first input of each module."""
    averages: list[Average] = field(default_factory=list)
    """Dimensions that are averaged over by modules."""
    merged_ones: list[tuple[Term, str]] = field(default_factory=list)
    """Axes of one unit that a view merged with others, each with the view: there is no following them."""
    coarsest: torch.dtype = torch.float64
    """The coarsest type that numbers are rounded to on their way, as norms do that compute in float32."""
    spreads: dict[int, tuple[float, float | None]] = field(default_factory=dict)
    """By id, mean and standard deviation of parameters and buffers; None of a single number."""
    draws: bool = False
    """Whether the model draws random numbers in evaluation mode."""
    failed_rules: dict[str, str] = field(default_factory=dict)
    """The operators whose rule raised an error, by name, each with the error."""


def coarsest(types: Iterable[torch.dtype]) -> torch.dtype:
    """The coarsest of some types of floating-point numbers; of none, float32."""
    return max(types, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)


ONE_UNIT = "has one unit, which cannot be told from broadcasting"


def lost_unit(why: str) -> str:
    """The reason for not learning a width of one unit, which would be found if it had more."""
    return (
        f"{ONE_UNIT} ({why}): hand the widths that were found before to Structure(widths=...), or keep "
        "min_units=2"
    )
