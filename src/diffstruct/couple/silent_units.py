"""New units that make no difference, of which all is random that may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from diffstruct.surgery import Change
from diffstruct.width.parts import positions
from diffstruct.width.silence import silence_writers, writers
from diffstruct.width.width import READERS, Role

SEED = 0
"""Of the random entries."""


def silent_units(changes: Sequence[Change], values: Mapping[Tensor, Tensor]) -> None:
    """Make all entries of the new units random, but their outgoing weights zero."""
    generator = torch.Generator().manual_seed(SEED)
    sizes = {change.width.axis: change.new_size for change in changes}
    for roles in ((Role.INCOMING, Role.MULTIPLIER), READERS):
        for change in changes:
            for slot in change.width.having(*roles):
                value = values[slot.tensor]
                where = positions(slot.layout, change.width.axis, len(change.keep), sizes).to(value.device)
                if roles is READERS:
                    value.index_fill_(slot.dim, where, 0)
                elif value.is_floating_point():
                    shape = [*value.shape]
                    shape[slot.dim] = len(where)
                    scale = slot.tensor.detach().float().abs().mean().item() + 0.1
                    noise = scale * (1 + torch.rand(shape, generator=generator))
                    value.index_copy_(slot.dim, where, noise.to(value))
    new = {change.width.axis: torch.arange(change.new_size) >= len(change.keep) for change in changes}
    for change in changes:
        axis = change.width.axis
        for slot in writers(change.width) if change.width.normalisation is not None else ():
            silence_writers(change.width, slot, values[slot.tensor], new[axis], sizes, new)
