"""The layer of gated recurrent units (GRU), as `torch.nn` defines it.

`r, z = sigmoid(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)`, reset and update, for their rows of the weights;
`n = tanh(W_in x_t + b_in + r (W_hn h_{t-1} + b_hn))`, the new gate; `h_t = (1 - z) n + z h_{t-1}`.
"""

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
        reset, update, new = step.chunk(3, dim=-1)
        from_reset, from_update, from_new = linear(state, weight_hh, bias_hh).chunk(3, dim=-1)
        reset, update = torch.sigmoid(reset + from_reset), torch.sigmoid(update + from_update)
        new = torch.tanh(new + reset * from_new)
        state = new + update * (state - new)
        states.append(state)
    return torch.stack(states), state[None]


gru = Kernel("gru", states=1, blocks=5, reference=reference)
