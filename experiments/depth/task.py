"""A task whose required depth is known: the states that k random maps lead through, one after the other.

Two numbers go through k maps, each a rotation, stretched, shifted, and folded by a sine; to be told are the
states after every one of them. What a map makes of a state is no function that few units could have of the
states before, so that each map takes a step of computation more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STATE, STREAM, HIDDEN = 2, 24, 6
"""Numbers in a state; the width of the residual stream; that of each block, at most."""

STRETCH = 2.0
EXAMPLES, TEST = 8192, 2048


def examples(steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """Where states begin, `[n, 2]`, and where they come through, `[n, 2 * steps]`, each with variance 1."""
    generator = torch.Generator().manual_seed(seed)
    begin = torch.rand(EXAMPLES, STATE, generator=generator) * 2 - 1
    state, states = begin, []
    for _ in range(steps):
        turned = torch.linalg.qr(torch.randn(STATE, STATE, generator=generator)).Q
        shift = 2 * torch.pi * torch.rand(STATE, generator=generator)
        state = torch.sin(STRETCH * state @ turned.T + shift)
        states.append(state)
    passed = torch.cat(states, 1)
    return begin, (passed - passed.mean(0)) / passed.std(0)


class Block(nn.Module):
    """A residual block with one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(STREAM)
        self.up, self.down = nn.Linear(STREAM, HIDDEN), nn.Linear(HIDDEN, STREAM)

    def forward(self, x: Tensor) -> Tensor:
        """From `[n, stream]` to the same."""
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Network(nn.Module):
    """Residual blocks between two linear layers.

    Args:
        depth: blocks.
        outputs: numbers to tell.
    """

    def __init__(self, depth: int, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Linear(STATE, STREAM)
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(STREAM), nn.Linear(STREAM, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """From `[n, 2]` to `[n, outputs]`."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
