"""Residual blocks one behind the other, of which there may be more or fewer: a declared depth."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from diffstruct.errors import ConfigurationError


class Residual(nn.Sequential):
    """Add to the input what each branch computes from it, one after the other: `x = x + branch(x)`.

    `ds.Structure` learns how many branches there are. In the state dict they are `0`, `1`, ..., as in
    `nn.Sequential`, and the module may be left in the finished model.

    Args:
        make_block: makes a branch, a module that returns what has the shape of its input.
        depth: branches to make, each by a call of its own.

    Raises:
        ConfigurationError: `depth` is no whole number of at least 1.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import diffstruct as ds
        >>> def block():
        ...     return nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))
        >>> model = nn.Sequential(nn.Linear(3, 8), ds.nn.Residual(block, depth=4), nn.Linear(8, 2))
        >>> ds.find_depths(model, (torch.ones(5, 3),)).depths
        {'1': Depth('1', size=4)}
    """

    def __init__(self, make_block: Callable[[], nn.Module], depth: int = 1) -> None:
        if not (isinstance(depth, int) and depth >= 1):
            raise ConfigurationError(f"depth must be a whole number of at least 1, got {depth!r}")
        super().__init__(*(make_block() for _ in range(depth)))

    def forward(self, input: Tensor) -> Tensor:
        """Run `input`, of any shape, through all branches; same shape out."""
        for branch in self:
            input = input + branch(input)
        return input
