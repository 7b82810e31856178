"""How much normalisations divide by less when units go that they average over.

`LayerNorm` and `RMSNorm` divide by the spread over all channels. When a channel is silenced, the spread is
smaller by that channel's share of the variance, and all others would come out larger; gains that are smaller
by as much keep them as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffstruct.distributed import Processes
from diffstruct.surgery import Copy
from diffstruct.width import Rescaled, Width
from diffstruct.width.layout import length, unit_sums

Gains: TypeAlias = dict[tuple[nn.Module, str], float]
"""By module and name of the gain: what it is multiplied by."""


def gains_of(width: Width) -> Iterator[Rescaled]:
    """The gains of the normalisations that average over the units of a width."""
    for each in width.rescaled:
        if each.power < 0 and isinstance(getattr(each.module, each.name), Tensor):
            yield each


class VarianceShares:
    """The share of the variance that each channel has in what goes into each normalisation.

    Args:
        widths: some of which normalisations average over.
    """

    def __init__(self, widths: Iterable[Width]) -> None:
        self._gains = [
            (each, width) for width in widths if width.normalisation is not None for each in gains_of(width)
        ]
        self.shares: dict[nn.Module, Tensor] = {}

    @contextmanager
    def watched(self, processes: Processes | None = None) -> Iterator[None]:
        """Measure the shares while the model runs, in the place of those that were measured before.

        Args:
            processes: that train the model, each of which runs it on its own part of the batch.
        """
        self.shares = {}
        modules = {gain.module: (gain, width) for gain, width in self._gains}
        handles = []
        for module, (gain, width) in modules.items():
            assert width.normalisation is not None
            hook = _recorder(self.shares, gain, width.normalisation.centred)
            handles.append(module.register_forward_pre_hook(hook))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if processes is None or processes.size == 1:
            return
        shapes = [(length(gain.layout),) for gain, _ in modules.values()]
        means = processes.mean([self.shares.get(module) for module in modules], shapes)
        self.shares = {m: mean for m, mean in zip(modules, means, strict=True) if mean is not None}

    def without(self, width: Width, units: NDArray[np.int64]) -> Gains:
        """What gains are to be multiplied by once these units are silent.

        Where no variance was measured, each channel has the same share.
        """
        found: Gains = {}
        for gain, other in self._gains:
            if other is width:
                shares = self.shares.get(gain.module)
                lost = len(units) / width.size
                if shares is not None and len(shares) == length(gain.layout):
                    by_unit = unit_sums(shares, gain.layout, width.axis)
                    lost = float(by_unit[torch.from_numpy(units).to(by_unit.device)].sum())
                found[gain.module, gain.name] = math.sqrt(max(1 - lost, 1e-6))
        return found


def means(parts: Sequence[dict[nn.Module, Tensor]]) -> dict[nn.Module, Tensor]:
    """The mean of what was measured on each part of a batch, by module; of one part that itself."""
    if len(parts) == 1:
        return parts[0]
    return {module: torch.stack([part[module] for part in parts]).mean(0) for module in parts[0]}


@torch.no_grad()
def scale_gains(gains: Mapping[tuple[nn.Module, str], float], copies: Iterable[Copy] = ()) -> None:
    """Multiply gains, and those of copies of the model."""
    for (module, name), factor in gains.items():
        getattr(module, name).mul_(factor)
        for copy in copies:
            getattr(copy.modules[module], name).mul_(factor)


def _recorder(shares: dict[nn.Module, Tensor], gain: Rescaled, centred: bool) -> Any:
    channels = length(gain.layout)

    @torch.no_grad()
    def record(module: nn.Module, args: tuple[Any, ...]) -> None:
        if module in shares or not (args and isinstance(args[0], Tensor)):
            return  # of a module that is called several times, the first
        fitting = [dim for dim in (-1, 1) if args[0].ndim > 1 and args[0].shape[dim] == channels]
        if not fitting:
            return
        values = args[0].detach().movedim(fitting[0], -1).flatten(0, -2).double()
        squares = (values - values.mean(-1, keepdim=True) if centred else values).square()
        total = squares.sum(-1, keepdim=True)
        known = squares[total[:, 0] > 0] / total[total[:, 0] > 0]
        if len(known):
            shares[module] = known.mean(0)

    return record
