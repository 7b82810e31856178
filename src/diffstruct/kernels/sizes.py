"""At which sizes the kernels pay."""

from __future__ import annotations

import torch

LARGEST, LARGEST_LSTM = 200_000, 3_000  # units times batch


def pays(gates: int, units: int, batch: int, dtype: torch.dtype) -> bool:
    """Whether a kernel is faster than `torch.nn`'s layer of the same cell.

    Measured by `benchmarks/recurrent.py`, forward and backward on one core with 512-bit vectors, at 10 to
    1,024 units and 1 to 256 sequences of 40 steps. Torch's LSTM in single precision is a fused one itself,
    whose products overtake ours once units times batch reach 3,000 to 4,000. The other layers of torch make
    a node of the graph for each operation of each step, which costs more than their products gain.
    """
    return gates != 4 or dtype == torch.float64 or batch == 1 or units * batch <= LARGEST_LSTM
