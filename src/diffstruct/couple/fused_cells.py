"""Cells of recurrent layers that a GPU has as one kernel each, made of simpler operators.

PyTorch can take neither apart. Both return, besides the state, a workspace for their backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def lstm_cell(
    from_input: Tensor,
    from_state: Tensor,
    memory: Tensor,
    input_bias: Tensor | None = None,
    state_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of an LSTM.

    Args:
        from_input: the input times its weights, `[B, 4 x units]`: input, forget, cell and output gates.
        from_state: the hidden state times its weights, shaped alike.
        memory: the cell state, `[B, units]`.
        input_bias: `[4 x units]`.
        state_bias: likewise.

    Returns:
        Hidden state and cell state, `[B, units]`, and the workspace.
    """
    gates = _biased(from_input, input_bias) + _biased(from_state, state_bias)
    enter, forget, cell, leave = gates.chunk(4, 1)
    memory = forget.sigmoid() * memory + enter.sigmoid() * cell.tanh()
    return leave.sigmoid() * memory.tanh(), memory, gates


def gru_cell(
    from_input: Tensor,
    from_state: Tensor,
    state: Tensor,
    input_bias: Tensor | None = None,
    state_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of a GRU.

    Args:
        from_input: the input times its weights, `[B, 3 x units]`: reset, update and new gates.
        from_state: the hidden state times its weights, shaped alike.
        state: the hidden state, `[B, units]`.
        input_bias: `[3 x units]`.
        state_bias: likewise.

    Returns:
        Hidden state, `[B, units]`, and the workspace.
    """
    mine = _biased(from_input, input_bias).chunk(3, 1)
    theirs = _biased(from_state, state_bias).chunk(3, 1)
    reset, update = ((one + other).sigmoid() for one, other in zip(mine[:2], theirs[:2], strict=True))
    new = (mine[2] + reset * theirs[2]).tanh()
    return new + update * (state - new), torch.cat([reset, update, new, state, theirs[2]], 1)


def _biased(gates: Tensor, bias: Tensor | None) -> Tensor:
    return gates if bias is None else gates + bias


SIMPLER: dict[str, Callable[..., Any]] = {
    "_thnn_fused_lstm_cell": lstm_cell,
    "_thnn_fused_gru_cell": gru_cell,
}
"""What to run in their place, by the names of operators."""
