"""Making a model hear the branches that it begins nearly without, so that a proof sees what goes on in them.

A layer scale of a millionth, a last projection of zeros, or weights of 0.02 in a narrow layer: what lies in
front of these hardly makes a difference to the output, and any surgery there would look right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

GAIN = 0.1
"""What faint gains are given in place: it is heard, and deep models do not overflow."""

MATRIX = 0.5
"""How much larger than its input the output of a matrix is that was faint, or about so."""

FAINT = 0.5
"""Below this share of these a parameter is faint."""

SEED = 0
"""Of the entries that take the place of zeros."""


@torch.no_grad()
def faint(model: nn.Module) -> dict[nn.Parameter, float]:
    """The parameters, but for biases, that nearly silence what they are multiplied by.

    Returns:
        For each the factor by which it would be heard; infinite if it is zero.
    """
    found: dict[nn.Parameter, float] = {}
    for name, parameter in model.named_parameters():
        if "bias" in name.rpartition(".")[2] or parameter.is_meta or not parameter.is_floating_point():
            continue
        if parameter.numel():
            heard, size = _heard(parameter), parameter.detach().double().square().mean().sqrt().item()
            if size < FAINT * heard:
                found[parameter] = heard / size if size else torch.inf
    return found


@contextmanager
@torch.no_grad()
def awake(parameters: dict[nn.Parameter, float]) -> Iterator[None]:
    """Make some parameters so many times as large meanwhile. Gains become all the same."""
    backup = [(parameter, parameter.detach().clone()) for parameter in parameters]
    generator = torch.Generator().manual_seed(SEED)
    try:
        for parameter, factor in parameters.items():
            if _is_gain(parameter):
                parameter.data.fill_(GAIN)
            elif factor == torch.inf:
                noise = _heard(parameter) * torch.randn(parameter.shape, generator=generator)
                parameter.data.copy_(noise.to(parameter))
            else:
                parameter.data.mul_(factor)
        yield
    finally:
        for parameter, before in backup:
            parameter.data.copy_(before)


def _is_gain(parameter: Tensor) -> bool:
    return parameter.numel() == max(parameter.shape, default=1)


def _heard(parameter: Tensor) -> float:
    """The root mean square of entries with which a parameter is heard."""
    if _is_gain(parameter):
        return GAIN
    return MATRIX * math.sqrt(len(parameter) / parameter.numel())
