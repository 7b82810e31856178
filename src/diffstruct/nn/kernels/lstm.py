"""The layer of long short-term memory (LSTM), as `torch.nn` defines it.

`i, f, o = sigmoid(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)`, the input, forget and output gates, and
`g = tanh(...)` of the same, each for its rows of the weights; `c_t = f c_{t-1} + i g`; `h_t = o tanh(c_t)`.
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
    cell: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The layer by plain differentiable operations; see `Kernel` for arguments and results."""
    projected = linear(input, weight_ih, bias_ih)
    zeros = input.new_zeros(input.shape[1], weight_hh.shape[1])
    state, cell_state = (zeros if given is None else given[0] for given in (hidden, cell))
    states = []
    for step in projected.unbind(0):
        i, f, g, o = (step + linear(state, weight_hh, bias_hh)).chunk(4, dim=-1)
        cell_state = torch.sigmoid(f) * cell_state + torch.sigmoid(i) * torch.tanh(g)
        state = torch.sigmoid(o) * torch.tanh(cell_state)
        states.append(state)
    return torch.stack(states), state[None], cell_state[None]


lstm = Kernel("lstm", states=2, blocks=6, reference=reference)
