"""The sizes at which the kernels are faster than `torch.nn`."""

from __future__ import annotations

import torch

LARGEST, LARGEST_GRU = 200_000, 50_000  # units times batch
LARGEST_LSTM, WIDEST_LSTM = 3_000, 256  # units times batch, and units; of torch's fused LSTM


def is_faster(gates: int, units: int, batch: int, dtype: torch.dtype) -> bool:
    """Whether a kernel is faster than `torch.nn`'s layer of the same cell.

    Measured with `benchmarks/recurrent.py`, forward and backward with one and two threads and 512-bit
    vectors, at 10 to 1,024 units and 1 to 256 sequences of 40 steps. Most layers of `torch.nn` make nodes of
    the graph for each step, which takes longer than their faster products save until those are very large.
    Torch's LSTM in single precision is fused as well: its products overtake ours once units times batch reach
    3,000 to 4,000, and with a second thread, which it uses even for one sequence, from 512 units.
    """
    if gates == 4 and dtype == torch.float32:
        return units <= WIDEST_LSTM and units * batch <= LARGEST_LSTM
    return units * batch <= (LARGEST_GRU if gates == 3 else LARGEST)
