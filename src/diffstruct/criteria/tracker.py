"""The importance tracker: moving averages of the units' importance, from the gradients of a training run."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from diffstruct.criteria import importance
from diffstruct.criteria.criterion import Training
from diffstruct.errors import DivergenceError, StructureWarning
from diffstruct.surgery import Change
from diffstruct.width import READERS, Slot, Width

FEWEST = 10
"""Observations that the moving averages look back on, at least."""


class Settings(Protocol):
    """What the tracker needs to know of a criterion; see `TaylorImportance`."""

    decay: float
    power: float
    rise: float
    memory: float
    annealing: float
    predictions: float | None
    reduction: Literal["mean", "sum"]
    first_order: bool
    conditional: bool


class ImportanceTracker:
    """The importance of the units of every width, from the gradients of their outgoing weights.

    Hooks on these weights look at each gradient as soon as `backward` has it, before anything clips it.

    Args:
        widths: by name.
        criterion: the price, and its times.
        training: the run.
    """

    def __init__(self, widths: Mapping[str, Width], criterion: Settings, training: Training) -> None:
        assert criterion.predictions is not None
        self.widths, self.training = widths, training
        self.criterion = criterion
        self.predictions = criterion.predictions
        self.share = 1.0 if criterion.reduction == "mean" else 1.0 / self.predictions
        """The mean over predictions is so much of the loss that `backward` sees."""
        total, interval = training.total_steps, training.interval
        self.rate = min(1 / FEWEST, interval / (criterion.memory * total))
        self.rise = max(1, math.ceil(criterion.rise * total / interval))
        grace = interval * max(map(training.grace_period, training.rules))
        self.last_addition = math.floor((1 - criterion.annealing) * total) - grace
        """The step from which on no unit is added: its grace period would not be over at the annealing."""
        self.refresh_every = max(1, round(0.05 / self.rate))
        """Decisions between two computations of `compared`."""
        self.recording = interval == 1
        """Whether the next gradients are recorded."""
        self.fisher: dict[str, NDArray[np.float64]] = {}
        self.mean_slopes: dict[str, NDArray[np.float64]] = {}
        """Moving averages: `F` and `E[G]` of `importance`."""
        self.compared: dict[str, NDArray[np.float64]] = {}
        """The importance that the decay compares with the price, as of the last `refresh`."""
        self._hooks: list[RemovableHandle] = []
        self._slopes: dict[tuple[Slot, str], Tensor] = {}  # widths may share a slot: both lie in its layout
        self._warned = False
        readers: dict[int, tuple[Tensor, list[tuple[Slot, Width]]]] = {}
        for name, width in widths.items():
            for slot in width.having(*READERS):
                readers.setdefault(id(slot.tensor), (slot.tensor, []))[1].append((slot, width))
            none = np.arange(0)
            self.fisher[name] = importance.resize_averages(np.zeros((0, 0)), none, width.size)
            self.mean_slopes[name] = np.zeros(width.size)
            self.compared[name] = np.zeros(width.size)
        self.readers = [*readers.values()]
        """The outgoing weights, each with all of its slots."""
        self._watch()

    def record_gradients(self, tensor: Tensor, slots: Sequence[tuple[Slot, Width]]) -> None:
        """Record the derivatives of the loss with respect to factors on the units' weights in `tensor`."""
        if not self.recording or tensor.grad is None:
            return
        product = tensor.detach() * tensor.grad.detach()
        for slot, width in slots:
            self._slopes[slot, width.name] = slot.per_unit(product, width.axis)

    def record_missing(self) -> None:
        """Record the gradients that no hook has seen, such as come from `torch.autograd.grad`."""
        if self.recording:
            for tensor, slots in self.readers:
                if tensor.grad is not None and (slots[0][0], slots[0][1].name) not in self._slopes:
                    self.record_gradients(tensor, slots)

    def update(self, ages: Mapping[str, NDArray[np.int64]]) -> None:
        """Enter what was recorded since the last time into the moving averages.

        Args:
            ages: of the units of each width, in decisions, this one not included.

        Raises:
            DivergenceError: a derivative is not finite; nothing is entered then.
        """
        recorded, self._slopes = self._slopes, {}
        found: dict[str, NDArray[np.float64]] = {}
        for name, width in self.widths.items():
            slots = [slot for slot in width.having(*READERS) if (slot, name) in recorded]
            if not slots:  # no gradient since the last decision
                continue
            parts = [recorded[slot, name] for slot in slots]
            total = parts[0] if len(parts) == 1 else torch.stack([part.to(parts[0]) for part in parts]).sum(0)
            found[name] = self.share * total.double().cpu().numpy()
            if not np.isfinite(found[name]).all():
                raise DivergenceError(
                    f"a gradient of the outgoing weights of width {name!r} is not finite: the loss has "
                    "diverged; lower the learning rate, or, if a GradScaler scales it, use "
                    "criterion=ds.OutgoingNorm()"
                )
        if not found and not self._warned:
            self._warned = True
            warnings.warn(
                "no gradient of any outgoing weight was recorded for this decision, so nothing is learned "
                "about the structure: the weights must have their gradients in .grad when the optimizer "
                "steps, and structure.step() must follow that step",
                StructureWarning,
                stacklevel=5,
            )
        for name, slopes in found.items():  # only now: nothing is entered where anything is wrong
            averages = self.fisher[name], self.mean_slopes[name]
            importance.update_averages(*averages, slopes, self.predictions, ages[name] + 1, self.rate)

    def marginal(self, name: str) -> NDArray[np.float64]:
        """The marginal importance of the units of a width, `[n]`, in nats per prediction."""
        diagonal = importance.diagonal(self.fisher[name])
        found: NDArray[np.float64] = importance.marginal(
            diagonal, self.mean_slopes[name], self.predictions, self.criterion.first_order
        )
        return found

    @torch.no_grad()
    def apply_decay(self, ages: Mapping[str, NDArray[np.int64]], step: int) -> None:
        """Let the outgoing weights of unimportant units decay.

        Args:
            ages: of the units of each width, in decisions.
            step: the number of the last one.
        """
        criterion, training = self.criterion, self.training
        left = importance.annealing(step, training.total_steps, criterion.annealing)
        due = training.interval * criterion.decay * left
        for name, width in self.widths.items():
            for slot in width.having(*READERS):
                factors = importance.decay_factors(
                    self.compared[name],
                    ages[name],
                    training.threshold(name),
                    due * learning_rate(slot.tensor, training.optimizers),
                    criterion.power,
                    training.grace_period(name),
                    self.rise,
                )
                if (factors < 1).any():
                    slot.tensor.mul_(slot.by_entry(torch.from_numpy(factors), width.axis).to(slot.tensor))

    def resize(self, changes: Mapping[str, Change]) -> None:
        """Follow a change of structure."""
        for name, change in changes.items():
            keep = np.asarray(change.keep, np.int64)
            self.fisher[name] = importance.resize_averages(self.fisher[name], keep, change.add)
            for known in (self.mean_slopes, self.compared):
                known[name] = np.concatenate([known[name][keep], np.zeros(change.add)])

    def refresh(self, step: int) -> None:
        """Compute the importance that the decay depends on, if it is time for it, after `step` steps."""
        if step == 0 or step % (self.refresh_every * self.training.interval):
            return
        criterion = self.criterion
        for name, fisher in self.fisher.items():
            # Of the diagonal alone, the conditional importance is that of units without duplicates.
            self.compared[name] = importance.geometric_mean(
                fisher if criterion.conditional else importance.diagonal(fisher),
                self.mean_slopes[name],
                self.predictions,
                self.training.threshold(name),
                criterion.first_order,
            )

    def detach(self) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _watch(self) -> None:
        self._hooks = [_hook(self, tensor, slots) for tensor, slots in self.readers]

    def __getstate__(self) -> dict[str, Any]:
        """Without hooks, which belong to the tensors, and what is recorded for the decision to come."""
        return {**vars(self), "_hooks": bool(self._hooks), "_slopes": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy watches the copied tensors."""
        vars(self).update(state)
        self._hooks = []
        if state["_hooks"]:
            self._watch()


def _hook(tracker: ImportanceTracker, tensor: Tensor, slots: list[tuple[Slot, Width]]) -> RemovableHandle:
    mine = weakref.ref(tracker)  # the model must not keep a structure alive that is used no more

    def hook(parameter: Tensor) -> None:
        owner = mine()
        if owner is not None:
            owner.record_gradients(parameter, slots)

    register: Callable[[Any], RemovableHandle] = tensor.register_post_accumulate_grad_hook
    return register(hook)


def learning_rate(tensor: Tensor, optimizers: Sequence[Optimizer]) -> float:
    """The learning rate of `tensor` now; 0 for one that no optimizer trains."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if any(parameter is tensor for parameter in group["params"]):
                return float(group["lr"])
    return 0.0
