"""What a `BatchNorm` remembers, kept true when units in front of it go.

Running means and variances follow only over some tens of steps, and after the last step no more: until then a
model in evaluation mode is one whose statistics are of units that it has no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from diffstruct.criteria.normalised import means
from diffstruct.distributed import Processes
from diffstruct.surgery import Change, Copy
from diffstruct.width.layout import owners

Statistics: TypeAlias = dict[nn.Module, tuple[Tensor, Tensor]]
"""By module: mean and logarithm of the variance of each channel, `[channels]`, or differences of such."""


class BatchNorms:
    """The `BatchNorm` modules of a model that have running statistics.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        every = (module for module in model.modules() if isinstance(module, _BatchNorm))
        self._modules = [module for module in every if module.running_mean is not None]

    @contextmanager
    def watched(self, reference: Statistics | None = None) -> Iterator[Statistics]:
        """Record the statistics of what goes into each module while the model runs.

        Args:
            reference: of another run. In evaluation mode, running statistics are shifted by what differs from
                it, before they are used; restoring them is left to who runs the model.
        """
        seen: Statistics = {}

        @torch.no_grad()
        def record(module: _BatchNorm, args: tuple[Any, ...]) -> None:
            if not args or module in seen:  # of one that is called several times, the first
                return
            seen[module] = _statistics(args[0], module.eps)
            if reference is not None and module in reference and not module.training:
                _shift(module, differences(seen, reference)[module])

        handles = [module.register_forward_pre_hook(record) for module in self._modules]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    def mean(self, found: Statistics, processes: Processes) -> Statistics:
        """The mean of statistics, or of differences of such, over the processes that train the model."""
        if processes.size == 1:
            return found
        tensors, shapes = [], []
        for module in self._modules:
            assert isinstance(module.running_mean, Tensor)
            tensors += [*found.get(module, (None, None))]
            shapes += 2 * [module.running_mean.shape]
        each = iter(processes.mean(tensors, shapes))
        pairs = {module: (next(each), next(each)) for module in self._modules}
        return {module: (a, b) for module, (a, b) in pairs.items() if a is not None and b is not None}

    @torch.no_grad()
    def follow(
        self, shifts: Sequence[Statistics], changes: Mapping[str, Change], copies: Sequence[Copy]
    ) -> None:
        """After the surgery: shift running statistics.

        Args:
            shifts: that add up, of the channels that there were before the surgery.
            changes: that were carried out.
            copies: of the model, that change alike.
        """
        for module in self._modules:
            for shift in (each[module] for each in shifts if module in each):
                moved = _moved(module, shift, changes)
                _shift(module, moved)
                for copy in copies:
                    _shift(copy.modules[module], moved)


def differences(found: Statistics, reference: Statistics) -> Statistics:
    """By how much statistics differ from those of another run."""
    return {
        module: (mean - reference[module][0], log_variance - reference[module][1])
        for module, (mean, log_variance) in found.items()
        if module in reference
    }


def mean_of(parts: Sequence[Statistics]) -> Statistics:
    """The mean of differences that parts of a batch have shown."""
    both = [means([{module: pair[i] for module, pair in part.items()} for part in parts]) for i in (0, 1)]
    return {module: (mean, both[1][module]) for module, mean in both[0].items()}


def _statistics(values: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(
        values.float(), [dim for dim in range(values.ndim) if dim != 1], correction=0
    )
    return mean, (variance + eps).log()


def _shift(module: nn.Module, shift: tuple[Tensor, Tensor]) -> None:
    mean, variance = module.running_mean, module.running_var
    assert isinstance(mean, Tensor)
    assert isinstance(variance, Tensor)
    mean.add_(shift[0].to(mean))
    variance.mul_(shift[1].exp().to(variance))


def _moved(
    module: nn.Module, shift: tuple[Tensor, Tensor], changes: Mapping[str, Change]
) -> tuple[Tensor, Tensor]:
    """A shift by the channels that there are after the surgery; that of new ones is 0."""
    stays, there, length = torch.ones(len(shift[0]), dtype=torch.bool), None, 0
    before = {change.width.axis: change.size for change in changes.values()}
    for change in changes.values():
        for slot in change.width.slots:
            if slot.module is module and slot.name == "running_mean":
                old = owners(slot.layout, change.width.axis, before)
                stays &= (old < 0) | torch.isin(old, torch.tensor(change.keep))
                new = owners(slot.layout, change.width.axis) < len(change.keep)
                there = new if there is None else there & new
                length = len(new)
    if there is None:
        return shift
    where = there.nonzero().flatten()
    mean, log_variance = (
        each.new_zeros(length).index_copy_(0, where.to(each.device), each[stays.to(each.device)])
        for each in shift
    )
    return mean, log_variance
