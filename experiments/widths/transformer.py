"""A small transformer that reads bytes, written by hand, with plain linear layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Causal self-attention, with separate projections."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        inner = num_heads * head_dim
        self.q, self.k, self.v = (nn.Linear(dim, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, time, dim]` to the same."""
        batch, time, _ = x.shape
        q, k, v = (
            project(x).view(batch, time, self.num_heads, self.head_dim).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(mixed.transpose(1, 2).reshape(batch, time, self.num_heads * self.head_dim))


class Block(nn.Module):
    """Attention and a feed-forward network, each behind a LayerNorm and added to what came in."""

    def __init__(self, dim: int, inner: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads, head_dim)
        self.up, self.down = nn.Linear(dim, inner), nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, time, dim]` to the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Predicts the next of 256 bytes.

    Args:
        inner: units of each feed-forward network.
        num_heads: of each attention.
        dim: of the stream that the blocks add to.
        head_dim: of each head.
        context: bytes that it sees at most.
        blocks: how many.
    """

    def __init__(
        self,
        inner: int,
        num_heads: int,
        dim: int = 64,
        head_dim: int = 16,
        context: int = 64,
        blocks: int = 2,
    ) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(256, dim), nn.Embedding(context, dim)
        self.blocks = nn.ModuleList(Block(dim, inner, num_heads, head_dim) for _ in range(blocks))
        self.norm, self.readout = nn.LayerNorm(dim), nn.Linear(dim, 256)

    def forward(self, text: Tensor) -> Tensor:
        """Bytes `[batch, time]` to logits `[batch, time, 256]`."""
        x = self.token(text) + self.position(torch.arange(text.shape[1], device=text.device))
        for block in self.blocks:
            x = block(x)
        return self.readout(self.norm(x))
