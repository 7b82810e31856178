"""Removal, confirmed by measuring: propose by importance, silence, run the model, and compare.

Importance is an estimate, of two orders of a series, on past batches; behind a BatchNorm, or several layers,
silencing units can cost many times as much. So units go only after they were silenced on the batch at hand,
the others having taken over what they can, and the model's outputs, or the loss where its kind is known, were
compared. What the estimate was off by is remembered for each width.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffstruct.criteria import importance
from diffstruct.criteria.batch_norms import BatchNorms, Statistics, differences, mean_of
from diffstruct.criteria.budget import BudgetPath
from diffstruct.criteria.costs import cost_of
from diffstruct.criteria.criterion import Training
from diffstruct.criteria.normalised import Gains, VarianceShares, means, scale_gains
from diffstruct.criteria.outputs import Call, Outputs, as_one
from diffstruct.criteria.silencing import restore, silence, taking_over, written
from diffstruct.criteria.tracker import ImportanceTracker, grace_ended, move_names
from diffstruct.distributed import scale_
from diffstruct.nn.undisturbed import SEED
from diffstruct.rule import round_up
from diffstruct.surgery import Change, Copy
from diffstruct.width import Depth

FORWARDS_A_STEP = 0.03
"""Runs of the model that measuring may take, for each step of training: a hundredth of its time."""

FORWARDS_WITH_A_BUDGET = 0.1
"""The same where all widths have to be compared all the time."""

FIRST_GROUP, LARGEST_GROUP, SMALLEST_GROUP = 0.1, 0.25, 0.02
"""The part of a width that is tried at once: at first, at most and at least."""

AT_THE_END = 0.1
"""The part of the price that counts at the end, when no training follows that could make up for a loss."""

MOST_OFF = 100.0
"""What an estimate may be off by, at most."""


@dataclass(frozen=True)
class Removal:
    """Units of one width that may go.

    Args:
        units: their indices.
        takeover: what the factors of all units change by, `[n]`, see `importance.takeover`.
        cost: measured: the share of what was won that goes with them; None where it was not.
        shifts: measured: by how much the statistics of what goes into each `BatchNorm` change with it.
        gains: what the gains of normalisations that average over the units are multiplied by.
    """

    units: NDArray[np.int64]
    takeover: NDArray[np.float64]
    cost: float | None
    shifts: Statistics = field(default_factory=dict)
    gains: Gains = field(default_factory=dict)


class Removals:
    """Finds the units that may go at each decision.

    Args:
        tracker: of their importance.
        outputs: of the model.
        training: the run.
        budget: that the model is to end with.
    """

    def __init__(
        self,
        tracker: ImportanceTracker,
        outputs: Outputs,
        training: Training,
        budget: BudgetPath | None,
    ) -> None:
        self.tracker, self.outputs, self.training, self.budget = tracker, outputs, training, budget
        self.off = dict.fromkeys(tracker.widths, 1.0)
        """Measured cost over estimated cost, of each width; drifts back to 1, so that it is tried again."""
        self.pending: dict[str, Removal] = {}
        """What may go at this decision."""
        self.shown = {name: np.zeros(width.size, np.bool_) for name, width in tracker.widths.items()}
        """Units that were shown to be removable, and stay while a multiple has to be filled."""
        self._norms = BatchNorms(training.model)
        self.variances = VarianceShares(tracker.widths.values())
        self.group = dict.fromkeys(tracker.widths, FIRST_GROUP)
        self.waiting = dict.fromkeys(tracker.widths, 0)
        self.credit = 0.0
        self._seed = 0
        """Of what the model itself draws in training, another for each decision: a block that is left out at
        random must not be left out at all of them, where its units would cost nothing."""

    def importance(self, name: str) -> NDArray[np.float64]:
        """Of the units of a width, corrected by what was measured."""
        return self.off[name] * self.tracker.importance[name]

    def find(self, step: int, ages: Mapping[str, NDArray[np.int64]], pressure: float) -> None:
        """Try the units that are not worth their price, and keep in `pending` those that may go.

        Args:
            step: made so far.
            ages: of the units of each width, in decisions, this one not included.
            pressure: from 0 to 1, the part of the price that counts now.
        """
        widths = self.tracker.widths
        most = 2.0 * (1 + len(widths))
        a_step = FORWARDS_A_STEP if self.budget is None else FORWARDS_WITH_A_BUDGET
        self.credit = min(self.credit + a_step * self.training.interval, most)
        self.pending, self._seed = {}, step
        for name, shown in self.shown.items():
            if shown.any():
                shown &= self.importance(name) <= self.training.threshold(name)
        proposed: dict[str, NDArray[np.int64]] = {}
        unseen = self.tracker.loss is None  # the outputs are not: there is nothing to measure by
        wanted = pressure > 0 or (self.budget is not None and bool(self.tracker.shares))
        if wanted and (unseen or (self.credit >= 2 and self.measurable)):
            proposed = {name: units for name in widths if len(units := self._proposal(name, ages[name]))}
        if self.budget is None and pressure > 0:
            self.off = {name: off**0.98 for name, off in self.off.items()}
        if proposed and unseen:
            self.pending = {name: self._unmeasured(name, units) for name, units in proposed.items()}
        elif proposed:
            self.credit -= 1
            call = self.outputs.calls[-1]
            with self.variances.watched(self.training.processes):
                before, reference = self._run(call)
            for name in sorted(proposed, key=lambda name: (-self.waiting[name], -len(proposed[name]))):
                if self.credit < 1:
                    self.waiting[name] += 1
                    continue
                self.credit -= 1
                self.waiting[name] = 0
                if len(units := proposed[name][: self._room(name)]):
                    self._try(name, units, call, before, reference, pressure)
        if self.budget is not None and self.tracker.shares:
            self._force(self.budget, step)

    @property
    def measurable(self) -> bool:
        """Whether there is a batch to measure on, and anything to lose."""
        known = self.tracker.loss is not None and self.tracker.won_something
        return known and self.training.processes.all(self.outputs.seen)

    def conclude(self, sizes: Mapping[str, int]) -> None:
        """For the end of the run: what may go in evaluation mode, all widths together, is `pending` then.

        Args:
            sizes: units that each width must keep at least.
        """
        self.pending = {}
        if not (self.tracker.shares and self.measurable):
            return
        parts = self.outputs.batch
        before, reference = self._evaluated(parts)
        tensors = {tensor: None for width in self.tracker.widths.values() for tensor in written(width)}
        backup = [(tensor, tensor.detach().clone()) for tensor in tensors]
        spent, shifted = 0.0, reference
        try:
            for name, width in self.tracker.widths.items():
                values = self.importance(name)
                order = np.argsort(values, kind="stable")
                below = order[values[order] <= self.training.threshold(name)]
                units = below[: min(max(0, width.size - sizes[name]), self._room(name))]
                while len(units):
                    change, gains = self._takeover(name, units), self.variances.without(width, units)
                    loud = silence(width, units, change, gains)
                    after, seen = self._evaluated(parts, reference)
                    cost = self._cost(as_one(parts), before, after) - spent
                    if cost <= AT_THE_END * self.tracker.fair_share(name, units):
                        spent += cost
                        moved = mean_of([*map(differences, seen, shifted)])
                        shifts = self._norms.mean(moved, self.training.processes)
                        shifted = seen
                        self.pending[name] = Removal(np.sort(units), change, cost, shifts, gains)
                        break
                    restore(loud)
                    units = units[: len(units) // 2]
        finally:
            restore(backup)
        if self.budget is not None:
            self._force(self.budget, self.training.total_steps)

    def _force(self, budget: BudgetPath, step: int) -> None:
        """Where the model still costs more than is allowed, let the least important units go.

        Where sizes are multiples, only so many at a time as make one: fewer would stay to fill it up.
        """
        widths, allowed = self.tracker.widths, budget.allowed(step)
        several = {name: self.training.multiple_of.get(name, 1) for name in widths}
        going = {name: set[int]() for name in widths}
        for name, removal in self.pending.items():
            going[name].update(removal.units.tolist())
        for name, shown in self.shown.items():
            if several[name] > 1:
                going[name].update(np.flatnonzero(shown).tolist())
        sizes = {
            name: round_up(width.size - len(going[name]), several[name]) for name, width in widths.items()
        }
        least = {name: self.training.rules[name].min_units or 1 for name in widths}
        values = ((v, name, i) for name in widths for i, v in enumerate(self.importance(name).tolist()))
        together = {name: set[int]() for name in widths}
        forced: set[str] = set()
        for _, name, unit in sorted(values):
            if budget.spent(sizes) <= allowed:
                break
            # A whole block only where that does not leave much of the budget unused.
            too_much = isinstance(widths[name], Depth) and budget.room(sizes, name) < 1
            smaller = sizes[name] - several[name]
            if unit in going[name] or smaller < least[name] or too_much:
                continue
            together[name].add(unit)
            if widths[name].size - len(going[name]) - len(together[name]) == smaller:
                going[name] |= together[name]
                together[name].clear()
                sizes[name] = smaller
                forced.add(name)
        for name in forced:
            self.pending[name] = self._unmeasured(name, np.array(sorted(going[name]), np.int64))

    @torch.no_grad()
    def take_over(self, changes: Mapping[str, Change], copies: list[Copy]) -> None:
        """After the surgery: let the units that stay take over what those that went have said."""
        shifts = []
        for name, change in changes.items():
            self.shown[name] = np.concatenate(
                [self.shown[name][list(change.keep)], np.zeros(change.add, np.bool_)]
            )
            removal = self.pending.get(name)
            if removal is None or not {*removal.units.tolist()}.isdisjoint(change.keep):
                continue
            shifts.append(removal.shifts)
            factors = np.ones(change.new_size)
            factors[: len(change.keep)] += removal.takeover[list(change.keep)]
            scale_gains(removal.gains, copies)
            for slot in taking_over(change.width):
                by_entry = slot.by_entry(torch.from_numpy(factors), change.width.axis)
                scale_(slot.tensor, by_entry)
                for copy in copies:
                    twin = getattr(copy.modules[slot.module], slot.name)
                    twin.mul_(by_entry.to(twin))
        self._norms.follow(shifts, changes, copies)

    def follow(
        self,
        training: Training,
        budget: BudgetPath | None,
        origin: Mapping[str, str | None],
    ) -> None:
        """Blocks have come or gone: go on with what is known of the widths that stay."""
        self.training, self.budget, self.pending = training, budget, {}
        self._norms = BatchNorms(training.model)
        self.variances = VarianceShares(self.tracker.widths.values())
        names: tuple[dict[str, Any], ...] = self.off, self.shown, self.group, self.waiting
        for known in names:
            move_names(known, origin)
        for name, width in self.tracker.widths.items():
            self.off.setdefault(name, 1.0)
            self.shown.setdefault(name, np.zeros(width.size, np.bool_))
            self.group.setdefault(name, FIRST_GROUP)
            self.waiting.setdefault(name, 0)

    def _proposal(self, name: str, ages: NDArray[np.int64]) -> NDArray[np.int64]:
        """The units to try: the least important of those that are not worth their price.

        With a budget, others as well: what is forced to go is compared by what was measured of each width.
        """
        width = self.tracker.widths[name]
        least = self.training.rules[name].min_units or 1
        values = self.importance(name)
        below = np.flatnonzero(
            ((values <= self.training.threshold(name)) | (self.budget is not None))
            & grace_ended(self.training, name, ages)
            & ~self.shown[name]
        )
        most = min(max(1, int(self.group[name] * width.size)), width.size - least, self._room(name))
        return np.sort(below[np.argsort(values[below], kind="stable")][: max(0, most)])

    def _room(self, name: str) -> int:
        """How many units of a width the budget lets go, besides those that are pending."""
        if self.budget is None:
            return sys.maxsize
        going = {each: len(removal.units) for each, removal in self.pending.items()}
        sizes = {each: width.size - going.get(each, 0) for each, width in self.tracker.widths.items()}
        return self.budget.room(sizes, name)

    def _try(
        self,
        name: str,
        units: NDArray[np.int64],
        call: Call,
        before: Tensor,
        reference: Statistics,
        pressure: float,
    ) -> None:
        cost, going, seen = self._measure(name, units, call, before, reference)
        allowed = self.tracker.fair_share(name, units) * pressure
        estimated = self.tracker.estimated(name, units)
        if pressure > 0 and cost <= allowed:  # without pressure, only to know how widths compare
            shifts = self._norms.mean(differences(seen, reference), self.training.processes)
            self.pending[name] = replace(going, cost=cost, shifts=shifts)
            self.shown[name][units] = True
            self.group[name] = min(LARGEST_GROUP, 1.3 * self.group[name])
        elif pressure > 0:
            self.group[name] = max(SMALLEST_GROUP, 0.6 * self.group[name])
        ratio = np.clip(max(cost, 0.0) / max(estimated, 1e-3 * allowed, 1e-300), 0.05, 400.0)
        least = 0.2 if self.budget is None else 1.0  # less than estimated was lost by chance alone
        self.off[name] = float(np.clip(np.sqrt(self.off[name] * ratio), least, MOST_OFF))

    def worth(self, name: str, units: NDArray[np.int64]) -> float | None:
        """The share of what was won that goes with units, measured on the batch at hand, over their price.

        None where there is nothing to measure by, or nothing has been won.
        """
        if not (self.tracker.shares and self.measurable and self.training.processes.all(self.outputs.finite)):
            return None
        call = self.outputs.calls[-1]
        cost, _, _ = self._measure(name, units, call, *self._run(call))
        return cost / self.tracker.fair_share(name, units)

    def _measure(
        self, name: str, units: NDArray[np.int64], call: Call, before: Tensor, reference: Statistics
    ) -> tuple[float, Removal, Statistics]:
        """Silence units on a batch: what they cost, what is made of the others, and the statistics then."""
        width, going = self.tracker.widths[name], self._unmeasured(name, units)
        loud = silence(width, units, going.takeover, going.gains)
        try:
            after, seen = self._run(call, reference)
        finally:
            restore(loud)
        return self._cost(call, before, after), going, seen

    def _run(
        self, call: Call, reference: Statistics | None = None, training: bool = True
    ) -> tuple[Tensor, Statistics]:
        """The outputs of a call with the weights as they are now, and what goes into each `BatchNorm`."""
        with self._norms.watched(reference) as seen:
            outputs = self.outputs.again(call, training, self._seed if training else SEED)
        self.training.processes.settle()
        return outputs, seen

    def _evaluated(
        self, parts: Sequence[Call], references: Sequence[Statistics] | None = None
    ) -> tuple[Tensor, list[Statistics]]:
        """The same in evaluation mode, of calls whose inputs are parts of one batch.

        Args:
            parts: the calls.
            references: what another run has found; None: this is what others are compared with, of which the
                share of the variance that each channel has is remembered, too.
        """
        found, shares = [], []
        for place, call in enumerate(parts):
            if references is None:
                with self.variances.watched(self.training.processes):
                    found.append(self._run(call, training=False))
                shares.append(self.variances.shares)
            else:
                found.append(self._run(call, references[place], training=False))
        if shares:
            self.variances.shares = means(shares)
        return torch.cat([outputs for outputs, _ in found]), [seen for _, seen in found]

    def _unmeasured(self, name: str, units: NDArray[np.int64]) -> Removal:
        gains = self.variances.without(self.tracker.widths[name], units)
        return Removal(units, self._takeover(name, units), None, gains=gains)

    def _takeover(self, name: str, units: NDArray[np.int64]) -> NDArray[np.float64]:
        return importance.takeover(self.tracker.curvature(name), units, self.tracker.price(name))

    def _cost(self, call: Call, before: Tensor, after: Tensor) -> float:
        """The share of what was won that outputs `after` lose against `before`."""
        loss = self.tracker.loss
        assert loss is not None
        return cost_of(loss, self.tracker.won, call, before, after, self.training.processes)
