"""The Elman layer: `h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from diffstruct.nn.kernels.sequence import Kernel


def reference(
    input: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    hidden: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The layer by plain differentiable operations; see `Kernel` for arguments and results."""
    projected = linear(input, weight_ih, bias_ih)
    state = input.new_zeros(input.shape[1], weight_hh.shape[1]) if hidden is None else hidden[0]
    states = []
    for step in projected.unbind(0):
        state = torch.tanh(step + linear(state, weight_hh, bias_hh))
        states.append(state)
    return torch.stack(states), state[None]


elman = Kernel("elman", states=1, blocks=1, reference=reference)
