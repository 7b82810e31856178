"""The importance tracker: moving averages of the units' importance, from the gradients of a training run."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from diffstruct.criteria import importance
from diffstruct.criteria.criterion import Training
from diffstruct.criteria.loss import Loss, won
from diffstruct.distributed import is_sharded, local, sums_along
from diffstruct.errors import DivergenceError, StructureWarning
from diffstruct.surgery import Change
from diffstruct.width import READERS, Slot, Width
from diffstruct.width.cost import Cost, cost_shares

FEWEST = 10
"""Observations that the moving averages look back on, at least."""

NOTHING = 1e-6
"""Nats that are nothing won."""

LEAST = 1e-30
"""In the place of 0, where something is divided by what was won."""


class Settings(Protocol):
    """What the tracker needs to know of a criterion; see `TaylorImportance`."""

    memory: float
    first_order: bool
    conditional: bool


class ImportanceTracker:
    """The importance of the units of every width, from the gradients of their outgoing weights.

    Hooks on these weights look at each gradient as soon as `backward` has it, before anything clips it.

    Args:
        widths: by name.
        criterion: its settings.
        training: the run.
        cost: of the model, by the sizes of its widths.
    """

    def __init__(
        self, widths: Mapping[str, Width], criterion: Settings, training: Training, cost: Cost
    ) -> None:
        self.widths, self.criterion, self.training, self.cost = widths, criterion, training, cost
        self.rate = min(1 / FEWEST, training.interval / (criterion.memory * training.total_steps))
        self.recording = training.interval == 1
        """Whether the next gradients are recorded."""
        self.loss: Loss | None = None
        """What the loss is: moving averages, but of scale and predictions."""
        self.won = 0.0
        """What the network has won, in the unit of `curvature`."""
        self.fisher: dict[str, NDArray[np.float64]] = {}
        self.mean_slopes: dict[str, NDArray[np.float64]] = {}
        """Moving averages: `F` and `E[G]` of `importance`."""
        self.importance: dict[str, NDArray[np.float64]] = {}
        """Of each unit, as of the last `refresh`: its share of what was won over its share of the cost."""
        self.alone: dict[str, NDArray[np.float64]] = {}
        """The same, as if no other unit could take anything over: what new units are recruited by."""
        self.shares: dict[str, float] = {}
        """The share of the cost of a unit of each width."""
        self.weights: dict[str, NDArray[np.float64]] = {}
        """Of a depth, what each block costs, over the average."""
        self.observations = 0
        self._hooks: list[RemovableHandle] = []
        self._slopes: dict[tuple[Slot, str], Tensor] = {}  # widths may share a slot: both lie in its layout
        self.warned = False
        for name, width in widths.items():
            self._begin(name, width.size)
        self.readers = _readers(widths)
        """The outgoing weights, each with all of its slots."""
        self._watch()

    def _begin(self, name: str, size: int) -> None:
        """Begin averages over units that have not been observed."""
        self.fisher[name] = importance.resize_averages(np.zeros((0, 0)), np.arange(0), size)
        for known in (self.mean_slopes, self.importance, self.alone):
            known[name] = np.zeros(size)

    def record_gradients(self, tensor: Tensor, slots: Sequence[tuple[Slot, Width]]) -> None:
        """Record the derivatives of the loss with respect to factors on the units' weights in `tensor`."""
        if not self.recording or tensor.grad is None:
            return
        product = local(tensor) * local(tensor.grad)
        for slot, width in slots:
            values = sums_along(product, tensor, slot.dim) if is_sharded(tensor) else product
            self._slopes[slot, width.name] = slot.per_unit(values, width.axis)

    def record_all(self) -> None:
        """Record the gradients that there are once `backward` has reduced all of them."""
        for tensor, slots in self.readers:
            self.record_gradients(tensor, slots)

    def record_missing(self) -> None:
        """Record the gradients that no hook has seen, such as come from `torch.autograd.grad`.

        With several processes they are the mean over these already, which no hook has to do with.
        """
        processes = self.training.processes
        if self.recording and processes.size == 1 and processes.sharding is None:
            for tensor, slots in self.readers:
                if tensor.grad is not None and (slots[0][0], slots[0][1].name) not in self._slopes:
                    self.record_gradients(tensor, slots)

    @property
    def recorded(self) -> bool:
        """Whether any gradient was recorded for the decision to come."""
        return bool(self._slopes)

    def forget(self) -> None:
        """Forget what was recorded: the optimizer made no step of it."""
        self._slopes = {}

    def take(self) -> dict[str, NDArray[np.float64]]:
        """What was recorded since the last time, `G` by width, of those that had a gradient; forget it."""
        recorded, self._slopes = self._slopes, {}
        found: dict[str, NDArray[np.float64]] = {}
        for name, width in self.widths.items():
            slots = [slot for slot in width.having(*READERS) if (slot, name) in recorded]
            if slots:
                parts = [recorded[slot, name] for slot in slots]
                total = parts[0] if len(parts) == 1 else torch.stack([p.to(parts[0]) for p in parts]).sum(0)
                found[name] = total.double().cpu().numpy()
        return found

    def update(
        self,
        ages: Mapping[str, NDArray[np.int64]],
        loss: Loss | None,
        seen: bool = False,
        found: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> None:
        """Enter what was recorded since the last time into the moving averages.

        Args:
            ages: of the units of each width, in decisions, this one not included.
            loss: what the loss of that step is; None if it could not be told.
            seen: whether the model's outputs were seen; if so, and the loss could be told before, a step of
                which it cannot is passed over: outputs were too sure, all alike, or not finite.
            found: what all processes have recorded, as `take` returns it; None: what this one has.

        Raises:
            DivergenceError: a derivative is not finite; nothing is entered then.
        """
        found = self.take() if found is None else found
        for name, slopes in found.items():
            if not np.isfinite(slopes).all():
                raise DivergenceError(
                    f"a gradient of the outgoing weights of width {name!r} is not finite: the loss has "
                    "diverged; lower the learning rate"
                )
        if not found:
            self._warn_once()
            return
        if loss is None and self.loss is not None and seen:
            return
        self._enter_loss(loss)
        scale, predictions = (1.0, 1.0) if self.loss is None else (self.loss.scale, self.loss.predictions)
        self.observations += 1
        for name, slopes in found.items():  # only now: nothing is entered where anything is wrong
            averages = self.fisher[name], self.mean_slopes[name]
            importance.update_averages(*averages, slopes / scale, predictions, ages[name] + 1, self.rate)

    @property
    def won_something(self) -> bool:
        """Whether the network has won anything that shares could be taken of."""
        known = self.loss is not None and self.loss.kind != "other"
        return self.won > (NOTHING if known else LEAST)

    def curvature(self, name: str) -> NDArray[np.float64]:
        """`C` of `importance`, of the units of a width."""
        predictions = 1.0 if self.loss is None else self.loss.predictions
        found: NDArray[np.float64] = importance.centred(
            self.fisher[name], self.mean_slopes[name], predictions
        )
        return found

    def price(self, name: str) -> float:
        """The price of a unit of a width, in the unit of `curvature`."""
        return self.fair_share(name) * self.won

    def fair_share(self, name: str, units: NDArray[np.int64] | None = None) -> float:
        """The share of what was won that units of a width must be worth together; by default that of one."""
        each = self.training.threshold(name) * self.shares[name]
        if units is None:
            return each
        return each * float(self.weights[name][units].sum() if name in self.weights else len(units))

    def estimated(self, name: str, units: NDArray[np.int64]) -> float:
        """The share of what was won that should go with units, going by their importance."""
        worth = self.importance[name][units] * (self.weights[name][units] if name in self.weights else 1.0)
        return float(worth.sum() * self.shares[name])

    def refresh(self) -> None:
        """Compute the importance of all units anew."""
        self.shares, self.weights = cost_shares(self.cost, self.widths)
        curvatures = {name: self.curvature(name) for name in self.widths}
        if self.loss is None:
            # All units of a width together make the output, of some widths at least.
            joint = (c.sum() for c in curvatures.values())
            self.won = 0.5 * max(*joint, 0.0)
        else:
            self.won = won(self.loss.kind, self.loss.nats, self.loss.constant, self.loss.spread)
        self.won = max(self.won, LEAST)
        first_order = self.criterion.first_order and self.loss is not None and self.loss.kind != "other"
        for name, curvature in curvatures.items():
            # Of the diagonal alone, the conditional importance is that of units without duplicates.
            kept = curvature if self.criterion.conditional else importance.diagonal(curvature)
            lost = importance.geometric_mean(kept, self.mean_slopes[name], self.price(name), first_order)
            alone = importance.marginal(kept, self.mean_slopes[name], first_order)
            due = self.shares[name] * self.won * self.weights.get(name, np.ones(1))
            self.importance[name], self.alone[name] = lost / due, alone / due

    def resize(self, changes: Mapping[str, Change]) -> None:
        """Follow a change of structure."""
        for name, change in changes.items():
            keep = np.asarray(change.keep, np.int64)
            self.fisher[name] = importance.resize_averages(self.fisher[name], keep, change.add)
            for known in (self.mean_slopes, self.importance, self.alone):
                known[name] = np.concatenate([known[name][keep], np.zeros(change.add)])
            if name in self.weights:
                self.weights[name] = np.concatenate([self.weights[name][keep], np.ones(change.add)])

    def follow(
        self, widths: Mapping[str, Width], training: Training, cost: Cost, origin: Mapping[str, str | None]
    ) -> None:
        """Blocks have come or gone, and widths with them: go on with what is known of those that stay.

        Args:
            widths: as they are now, by name.
            training: the run.
            cost: of the model, by the sizes of these widths.
            origin: the names that they had; None for new ones.
        """
        watching = bool(self._hooks)
        self.detach()
        self._slopes = {}
        self.widths, self.training, self.cost = widths, training, cost
        for known in (self.fisher, self.mean_slopes, self.importance, self.alone):
            move_names(known, origin)
        for name, width in widths.items():
            if name not in self.fisher:
                self._begin(name, width.size)
        self.readers = _readers(widths)
        if self.shares:
            self.shares, self.weights = cost_shares(cost, widths)
        if watching:
            self._watch()

    def detach(self) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _enter_loss(self, loss: Loss | None) -> None:
        """Bring the moving averages of the loss up to date; another kind of loss begins all averages anew."""
        before = self.loss
        if loss is None or before is None or loss.kind != before.kind:
            if (loss is None) != (before is None) or (loss and before and loss.kind != before.kind):
                self.observations = 0
                for known in (self.fisher, self.mean_slopes):
                    for values in known.values():
                        values[:] = 0.0
            self.loss = loss
            return
        rate = max(self.rate, 1 / (self.observations + 1))
        same = before.constant.shape == loss.constant.shape
        self.loss = Loss(
            loss.kind,
            loss.scale,
            loss.predictions,
            before.nats + rate * (loss.nats - before.nats),
            before.constant + rate * (loss.constant - before.constant) if same else loss.constant,
            before.spread + rate * (loss.spread - before.spread),
        )

    def _warn_once(self) -> None:
        if not self.warned:
            self.warned = True
            warnings.warn(
                "no gradient of any outgoing weight was recorded for this decision, so nothing is learned "
                "about the structure: the weights must have their gradients in .grad when the optimizer "
                "steps, and structure.step() must follow that step",
                StructureWarning,
                stacklevel=6,
            )

    def _watch(self) -> None:
        self._hooks = [_hook(self, tensor, slots) for tensor, slots in self.readers if not is_sharded(tensor)]

    def __getstate__(self) -> dict[str, Any]:
        """Without hooks, which belong to the tensors, and what is recorded for the decision to come."""
        return {**vars(self), "_hooks": bool(self._hooks), "_slopes": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy watches the copied tensors."""
        vars(self).update(state)
        self._hooks = []
        if state["_hooks"]:
            self._watch()


def move_names(known: dict[str, Any], origin: Mapping[str, str | None]) -> None:
    """Keep what is known under the names that widths have now.

    Args:
        known: by the names that they had; changed in place.
        origin: these names, by the new ones; None for widths that are new.
    """
    old = dict(known)
    known.clear()
    known.update({name: old[was] for name, was in origin.items() if was is not None and was in old})


def _readers(widths: Mapping[str, Width]) -> list[tuple[Tensor, list[tuple[Slot, Width]]]]:
    """The outgoing weights of all widths, each with all of its slots."""
    readers: dict[int, tuple[Tensor, list[tuple[Slot, Width]]]] = {}
    for width in widths.values():
        for slot in width.having(*READERS):
            readers.setdefault(id(slot.tensor), (slot.tensor, []))[1].append((slot, width))
    return [*readers.values()]


def grace_ended(training: Training, name: str, ages: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which units, of so many decisions, are past their grace period at the one that follows."""
    return ages + 1 > training.grace_period(name)


def ramp_length(rise: float, training: Training) -> int:
    """A fraction of the run in decisions, one at least."""
    return max(1, math.ceil(rise * training.total_steps / training.interval))


def _hook(tracker: ImportanceTracker, tensor: Tensor, slots: list[tuple[Slot, Width]]) -> RemovableHandle:
    mine = weakref.ref(tracker)  # the model must not keep a structure alive that is used no more

    def hook(parameter: Tensor) -> None:
        owner = mine()
        if owner is not None:
            owner.record_gradients(parameter, slots)

    register: Callable[[Any], RemovableHandle] = tensor.register_post_accumulate_grad_hook
    return register(hook)
