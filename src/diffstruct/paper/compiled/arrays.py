"""The memory of a network and of its optimizer's state, as the arrays of compiled code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from diffstruct.paper.compiled.network import Tensors
from diffstruct.paper.network import CharRNN
from diffstruct.paper.rmsprop import ClippedRMSprop

Memories: TypeAlias = Callable[[str], Tensors]
"""Gives a state of the optimizer, by name, for all parameters."""


def array(tensor: Tensor) -> NDArray[Any]:
    """The tensor's memory, as an array."""
    found: NDArray[Any] = tensor.detach().numpy()
    return found


def parameters_of(model: CharRNN) -> list[Tensor]:
    """The network's parameters, in the order of `Tensors`."""
    rnn: Any = model.rnn  # whose parameters mypy does not know
    multiplier = model.multiplier
    return [
        rnn.weight_ih_l0,
        rnn.weight_hh_l0,
        model.readout.weight,
        rnn.bias_ih_l0,
        model.readout.bias,
        torch.ones_like(rnn.bias_ih_l0) if multiplier is None else multiplier.weight,
    ]


def memories_of(optimizer: Optimizer, parameters: Sequence[Tensor]) -> Memories:
    """The state of the parameters; state that the optimizer makes at its first step is made here."""
    _prepare(optimizer, parameters)

    def memory(name: str) -> Tensors:
        # A parameter that the optimizer does not train has no state: any array of its shape will do.
        states = (optimizer.state.get(parameter, {}).get(name, parameter) for parameter in parameters)
        return Tensors(*map(array, states))

    return memory


def _prepare(optimizer: Optimizer, parameters: Sequence[Tensor]) -> None:
    ours = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:
        for parameter in (each for each in group["params"] if id(each) in ours):
            if isinstance(optimizer, ClippedRMSprop):
                optimizer.square_avg(parameter, group["initial"])
            elif isinstance(optimizer, torch.optim.Adam) and parameter not in optimizer.state:
                averages = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                optimizer.state[parameter] = {"step": torch.zeros(()), **averages}
