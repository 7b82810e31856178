"""Draws that come out the same with every version of PyTorch, as those of `torch.multinomial` do not."""

import torch
from torch import Generator, Tensor


def drawn(probabilities: Tensor, generator: Generator | None = None) -> Tensor:
    """One class for each row: `[rows, classes]` to `[rows]`."""
    at = torch.rand(len(probabilities), 1, dtype=probabilities.dtype, generator=generator)
    return (probabilities.cumsum(1)[:, :-1] < at).sum(1)
