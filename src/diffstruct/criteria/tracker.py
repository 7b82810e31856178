"""The ledger: keeps what each unit of a model has earned, and takes the price from what units say."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from diffstruct.criteria import importance
from diffstruct.criteria.l1 import UnitPrice
from diffstruct.errors import DivergenceError, StructureError
from diffstruct.rule.rule import Rule
from diffstruct.surgery.plan import Change
from diffstruct.width.layout import owners
from diffstruct.width.width import Role, Slot, Width

SAYS = (Role.OUTGOING, Role.RECURRENT)

FEWEST = 10
"""Observations that the moving averages look back on, at least."""


class ImportanceTracker:
    """Earnings of the units of every width, measured from the gradients of what they say.

    Hooks on these weights look at each gradient as soon as `backward` has it, before anything clips it.

    Args:
        widths: by name.
        price: what units pay.
        predictions: that the loss is the mean of, or the sum.
        reduction: which of the two.
        updates: of the whole run.
        every: updates between two observations.
        grace_period: the longest that a newborn has, in updates.

    Raises:
        StructureError: nothing that could be trained reads a width.
    """

    def __init__(
        self,
        widths: Mapping[str, Width],
        price: UnitPrice,
        predictions: float,
        reduction: Literal["mean", "sum"],
        updates: int,
        every: int,
        grace_period: int,
    ) -> None:
        self.widths = widths
        self.price = price
        self.predictions = predictions
        self.share = 1.0 if reduction == "mean" else 1.0 / predictions
        """Of what `backward` sees, what the mean over predictions is."""
        self.rate = min(1 / FEWEST, every / (price.memory * updates))
        self.rise = max(1, math.ceil(price.rise * updates / every))
        self.updates = updates
        self.last_call = math.floor((1 - price.ease) * updates) - grace_period
        """The update from which on nobody new comes: who came later would still be on trial at the easing."""
        self._every = every
        self.refresh_every = max(1, round(0.05 / self.rate))
        self.open = True
        """Whether the next gradients are looked at."""
        self.fisher: dict[str, NDArray[np.float64]] = {}
        self.mean_slopes: dict[str, NDArray[np.float64]] = {}
        """Moving averages: `F` and `E[G]` of `earnings`."""
        self.earned: dict[str, NDArray[np.float64]] = {}
        """What the price sets against itself, as of the last time that it was worked out."""
        self._seen: dict[tuple[Slot, str], Tensor] = {}  # widths may share a slot: both lie in its layout
        readers: dict[int, tuple[Tensor, list[tuple[Slot, Width]]]] = {}
        for name, width in widths.items():
            for slot in trained_readers(width):
                readers.setdefault(id(slot.tensor), (slot.tensor, []))[1].append((slot, width))
            none = np.arange(0)
            self.fisher[name] = importance.resize_averages(np.zeros((0, 0)), none, width.size)
            self.mean_slopes[name] = np.zeros(width.size)
            self.earned[name] = np.zeros(width.size)
        self.readers = [*readers.values()]
        """The tensors through which units speak, each with all of its slots that are read."""
        self._hooks = [_watch(self, tensor, slots) for tensor, slots in self.readers]

    def record_gradients(self, tensor: Tensor, slots: Sequence[tuple[Slot, Width]]) -> None:
        """Note the slopes of the loss with respect to factors on what the units say through `tensor`."""
        if not self.open or tensor.grad is None:
            return
        product = tensor.detach() * tensor.grad.detach()
        for slot, width in slots:
            self._seen[slot, width.name] = slot.per_unit(product, width.axis)

    def update(self, ages: Mapping[str, NDArray[np.int64]]) -> None:
        """Enter the slopes since the last time.

        Args:
            ages: of the units of each width, in decisions, without the one that is coming.

        Raises:
            DivergenceError: a slope is not finite.
        """
        seen, self._seen = self._seen, {}
        found: dict[str, NDArray[np.float64]] = {}
        for name, width in self.widths.items():
            parts = [seen[slot, name] for slot in width.having(*SAYS) if (slot, name) in seen]
            if not parts:  # no backward since: nothing to learn from
                continue
            total = parts[0] if len(parts) == 1 else torch.stack([part.to(parts[0]) for part in parts]).sum(0)
            found[name] = self.share * total.double().cpu().numpy()
            if not np.isfinite(found[name]).all():
                raise DivergenceError(
                    f"a gradient of what width {name!r} says is not finite: the loss has diverged; lower "
                    "the learning rate, or, if a GradScaler scales it, use salience='outgoing'"
                )
        for name, slopes in found.items():  # only now: nothing is entered where anything is wrong
            known = self.fisher[name], self.mean_slopes[name]
            importance.update_averages(*known, slopes, self.predictions, ages[name] + 1, self.rate)

    def saliences(self, width: Width) -> Tensor:
        """What each unit earns, `[n]`, in nats per prediction."""
        return torch.from_numpy(
            importance.marginal(
                importance.diagonal(self.fisher[width.name]), self.mean_slopes[width.name], self.predictions
            )
        )

    @torch.no_grad()
    def apply_decay(
        self,
        ages: Mapping[str, NDArray[np.int64]],
        rules: Mapping[str, Rule],
        optimizers: Sequence[Optimizer],
        update: int,
    ) -> None:
        """Take the price.

        Args:
            ages: of the units of each width, in decisions.
            rules: of each width, with the price of a unit for its threshold, and times in decisions.
            optimizers: whose learning rates count.
            update: the number of the last one.
        """
        price = self.price
        due = self._every * price.strength * importance.annealing(update, self.updates, price.ease)
        for name, width in self.widths.items():
            for slot in width.having(*SAYS):
                strength = due * rate_of(slot.tensor, optimizers)
                factors = importance.decay_factors(
                    self.earned[name],
                    ages[name],
                    rules[name].threshold,
                    strength,
                    price.power,
                    int(rules[name].grace_period),
                    self.rise,
                )
                if (factors < 1).any():
                    _scale(slot, width, torch.from_numpy(factors))

    def resize(self, changes: Mapping[str, Change]) -> None:
        """Follow a change of structure."""
        for name, change in changes.items():
            keep = np.asarray(change.keep, np.int64)
            self.fisher[name] = importance.resize_averages(self.fisher[name], keep, change.add)
            for known in (self.mean_slopes, self.earned):
                known[name] = np.concatenate([known[name][keep], np.zeros(change.add)])

    def refresh(self, rules: Mapping[str, Rule], updates: int) -> None:
        """Work out anew what units have earned, if it is time for it.

        Args:
            rules: as in `collect`.
            updates: made so far.
        """
        if updates % (self.refresh_every * self._every) == 0:
            for name, fisher in self.fisher.items():
                self.earned[name] = importance.geometric_mean(
                    fisher, self.mean_slopes[name], self.predictions, rules[name].threshold
                )

    def detach(self) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.remove()


def trained_readers(width: Width) -> list[Slot]:
    """The slots through which units speak and that are trained.

    Raises:
        StructureError: there is none.
    """
    slots = [slot for slot in width.having(*SAYS) if slot.tensor.requires_grad]
    if not slots:
        raise StructureError(
            f"nothing that is trained reads width {width.name!r}, so what its units earn cannot be "
            "measured: exclude it, or use salience='outgoing'"
        )
    return slots


def _watch(ledger: ImportanceTracker, tensor: Tensor, slots: list[tuple[Slot, Width]]) -> RemovableHandle:
    mine = weakref.ref(ledger)  # the model must not keep a structure alive that nobody uses

    def hook(parameter: Tensor) -> None:
        owner = mine()
        if owner is not None:
            owner.record_gradients(parameter, slots)

    register: Callable[[Any], RemovableHandle] = tensor.register_post_accumulate_grad_hook
    return register(hook)


def rate_of(tensor: Tensor, optimizers: Sequence[Optimizer]) -> float:
    """The learning rate of `tensor` now; 0 for one that no optimizer trains."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if any(parameter is tensor for parameter in group["params"]):
                return float(group["lr"])
    return 0.0


def _scale(slot: Slot, width: Width, factors: Tensor) -> None:
    """Multiply what each unit says through the slot by its factor, in place; `factors` `[units]`."""
    tensor = slot.tensor
    unit = owners(slot.layout, width.axis)
    # Entries of no unit of this width have -1 there, and so take the one at the end.
    by_entry = torch.cat([factors, factors.new_ones(1)])[unit].to(tensor)
    shape = [1] * tensor.ndim
    shape[slot.dim] = -1
    tensor.mul_(by_entry.view(shape))
