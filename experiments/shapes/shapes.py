"""Uniform shapes of a transformer that all have the same number of parameters."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from text import CONTEXT
from transformer import Transformer

HEAD = 16
"""Entries of a head of every uniform shape."""


class Shape(NamedTuple):
    """A transformer whose blocks are all alike.

    Args:
        inner: units of each feed-forward network.
        heads: of each attention.
        dim: channels of the stream.
        blocks: how many.
    """

    inner: int
    heads: int
    dim: int
    blocks: int

    def build(self) -> Transformer:
        """The model, from PyTorch's own generator."""
        return Transformer(self.inner, self.heads, self.dim, HEAD, CONTEXT, self.blocks)

    @property
    def parameters(self) -> int:
        """Of the model."""
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in self.build().parameters())

    def __str__(self) -> str:
        return f"{self.blocks} x ({self.inner}, {self.heads}), stream {self.dim}"


OWN = Shape(768, 12, 96, 2)
"""What learned models begin from: as wide as the widest of the grid."""

STREAMS, BLOCKS, CHANNELS_A_HEAD = (48, 64, 96), (1, 2, 3), (32, 16)

MOST_BLOCKS = max(BLOCKS)
"""That a model may have whose blocks come and go."""


def uniform_shapes(budget: int) -> Iterator[Shape]:
    """A shape for each stream, number of blocks and of heads that fit in, with feed-forward units to fill."""
    for dim, blocks, channels in product(STREAMS, BLOCKS, CHANNELS_A_HEAD):
        heads = round(dim / channels)
        one, two = (Shape(inner, heads, dim, blocks).parameters for inner in (1, 2))
        inner = 1 + (budget - one) // (two - one)
        if inner >= 4:
            yield Shape(inner, heads, dim, blocks)
