"""Gradients that are not finite, seen before an optimizer's step spoils weights and its state with them."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from diffstruct.distributed import is_sharded
from diffstruct.errors import ConfigurationError, DivergenceError, StructureWarning

Nonfinite: TypeAlias = Literal["raise", "skip", "ignore"]
"""What becomes of a step whose gradients are not finite."""


Version: TypeAlias = tuple[int, int]


class Guard:
    """Stops or leaves out the steps of optimizers whose gradients are not finite.

    Weights, optimizer state and buffers are then as the last good step left them: what the forward pass has
    made of buffers, such as the running statistics of a `BatchNorm`, is taken back.

    Args:
        model: that is trained.
        optimizers: that train it; if one of them has such a gradient, all are stopped.
        how: what becomes of such a step.

    Raises:
        ConfigurationError: `how` is none of the three.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer], how: Nonfinite) -> None:
        if how not in ("raise", "skip", "ignore"):
            raise ConfigurationError(f"nonfinite must be 'raise', 'skip' or 'ignore', got {how!r}")
        self.model, self.optimizers, self.how = model, optimizers, how
        self.skipped = 0
        """Steps that were left out."""
        self._modules: list[nn.Module] | None = None  # those that have buffers
        self._good: dict[Tensor, tuple[nn.Module, Version, Tensor]] = {}
        self.renew()

    def renew(self) -> None:
        """Remember all buffers as they are now; called after each change of structure."""
        self.forget()
        self._remember()

    def forget(self) -> None:
        """Forget what buffers were: after the next good step they are remembered anew."""
        self._good, self._modules = {}, None

    def passes(self, step: int, optimizer: Optimizer) -> bool:
        """Whether a step may be made; if not, there are no gradients any more, so that optimizers do nothing.

        Args:
            step: its number, from 1.
            optimizer: that is about to make it.

        Raises:
            DivergenceError: a gradient is not finite, and `how` is `"raise"`.
        """
        if self.how == "ignore" or all_finite(_gradients(self.optimizers)):
            self._remember()
            return True
        if _scaler_is_calling() and all_finite(_gradients([optimizer])):
            return True  # the scaler will leave the steps of the others out
        self._put_back()
        named = ((name, p.grad) for name, p in self.model.named_parameters() if p.grad is not None)
        bad = next((name for name, grad in named if not all_finite([grad])), "a parameter")
        if self.how == "raise":
            raise DivergenceError(
                f"the gradient of {bad} is not finite at step {step}: the step was not made, and weights, "
                "optimizer state and structure are the last good ones. Lower the learning rate, clip "
                'gradients, or leave such steps out with Structure(nonfinite="skip")'
            )
        for each in _parameters(self.optimizers):
            each.grad = None
        self.skipped += 1
        if self.skipped == 1:
            warnings.warn(
                f"the gradient of {bad} is not finite at step {step}, which is left out; so will others be, "
                "and finish() says how many there were",
                StructureWarning,
                stacklevel=5,
            )
        return False

    def remarks(self, steps: int) -> list[str]:
        """How many of so many steps were left out, if any: a sentence."""
        if not self.skipped:
            return []
        return [
            f"{self.skipped} of {steps} steps were left out, since gradients were not finite: if these are "
            "many, look at the data and the learning rate"
        ]

    def _remember(self) -> None:
        """Copy the buffers that have changed."""
        if self.how == "ignore":
            return
        good = self._good
        if self._modules is None:
            self._modules = [module for module in self.model.modules() if module._buffers]
        for module in self._modules:
            for buffer in module._buffers.values():
                if buffer is not None:
                    known, version = good.get(buffer), _version(module, buffer)
                    if known is None or known[1] != version:
                        good[buffer] = module, version, buffer.detach().clone()

    @torch.no_grad()
    def _put_back(self) -> None:
        changed = {
            buffer: value
            for buffer, (module, version, value) in self._good.items()
            if _version(module, buffer) != version and buffer.shape == value.shape
        }
        for buffer, value in changed.items():
            buffer.copy_(value)
        for buffer, value in changed.items():
            module = self._good[buffer][0]
            self._good[buffer] = module, _version(module, buffer), value

    def __getstate__(self) -> dict[str, Any]:
        """Without what is known of buffers, which are others in a copy."""
        return {**vars(self), "_good": {}}


def _parameters(optimizers: Iterable[Optimizer]) -> Iterator[Tensor]:
    return (p for each in optimizers for group in each.param_groups for p in group["params"])


def _gradients(optimizers: Iterable[Optimizer]) -> list[Tensor]:
    return [each.grad for each in _parameters(optimizers) if each.grad is not None]


def _scaler_is_calling() -> bool:
    """Whether a `GradScaler` makes the optimizer step, which it tells those alone that can unscale.

    Looking at who calls takes time, and is for steps that are in trouble.
    """
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if isinstance(frame.f_locals.get("self"), GradScaler):
            return True
    return False


def _version(module: nn.Module, buffer: Tensor) -> Version:
    """Changes with a buffer. PyTorch does not count what it does to running statistics, but modules do."""
    counted = module._buffers.get("num_batches_tracked")
    return buffer._version, 0 if counted is None else counted._version


def all_finite(gradients: Iterable[Tensor]) -> bool:
    """Whether all entries of some gradients are finite; of sharded ones all ranks come to the same."""
    here: list[Tensor] = []
    elsewhere: list[Tensor] = []
    sharded: list[Tensor] = []
    for each in gradients:
        if is_sharded(each):
            sharded.append(each)
        else:
            (here if each.is_cpu else elsewhere).append(each._values() if each.is_sparse else each)
    if sharded:
        norm: Any = torch.nn.utils.get_total_norm(sharded)
        if not math.isfinite((norm.full_tensor() if is_sharded(norm) else norm).item()):
            return False
    # One number tells; if that is not finite it may be an overflow, so that all have to be looked at.
    total = sum([each.sum().item() for each in here])
    if elsewhere:
        total += torch.nn.utils.get_total_norm(elsewhere).item()
    return math.isfinite(total) or all(bool(each.isfinite().all()) for each in (*here, *elsewhere))
