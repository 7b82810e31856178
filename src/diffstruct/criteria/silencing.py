"""Silencing units on trial: what is written, and how it is put back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffstruct.criteria.normalised import Gains, scale_gains
from diffstruct.distributed import is_sharded, put_rows, scale_, whole
from diffstruct.width import READERS, Slot, Width
from diffstruct.width.silence import silence_writers, writers


@torch.no_grad()
def silence(
    width: Width,
    units: NDArray[np.int64],
    change: NDArray[np.float64],
    gains: Gains,
) -> list[tuple[Tensor, Tensor]]:
    """Silence units, the others taking over; return the weights as they were before."""
    loud = [(tensor, tensor.detach().clone()) for tensor in written(width)]
    factors = 1.0 + change
    factors[units] = 0.0
    for slot in taking_over(width):
        scale_(slot.tensor, slot.by_entry(torch.from_numpy(factors), width.axis))
    if width.normalisation is not None:
        silent = torch.zeros(width.size, dtype=torch.bool)
        silent[torch.from_numpy(units)] = True
        for slot in writers(width):  # whole one after the other, where they are sharded
            value = whole(slot.tensor.detach())
            silence_writers(width, slot, value, silent)
            if is_sharded(slot.tensor):
                put_rows(slot.tensor, value)
        scale_gains(gains)
    return loud


def taking_over(width: Width) -> Iterator[Slot]:
    """The weights that read units; of a width that is normalised, those that do not feed it as well."""
    for slot in width.having(*READERS):
        if width.normalisation is None or not slot.feeds:
            yield slot


def written(width: Width) -> dict[Tensor, None]:
    """The tensors that are written where units are silenced."""
    slots = [*width.having(*READERS)]
    if width.normalisation is not None:
        slots += writers(width)
    return dict.fromkeys(slot.tensor for slot in slots)


@torch.no_grad()
def restore(weights: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Put weights back."""
    for tensor, value in weights:
        tensor.copy_(value)
