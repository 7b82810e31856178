"""Structure: ties salience, price, rule and surgery to a model and its optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from diffstruct.couple import Proof, Refusal, declared_widths, traced_widths
from diffstruct.criteria.initialization import Newborn
from diffstruct.criteria.l1 import L1Price, UnitPrice
from diffstruct.criteria.norms import SALIENCES, paying
from diffstruct.criteria.parametrization import attach, detach
from diffstruct.criteria.tracker import ImportanceTracker, trained_readers
from diffstruct.errors import ConfigurationError, StructureError
from diffstruct.rule.multiples import in_multiples, multiple
from diffstruct.rule.rule import Decision, Rule, RuleState
from diffstruct.structure.finish import plain
from diffstruct.structure.history import Event, History
from diffstruct.structure.start import cannot_start, first_changes
from diffstruct.surgery import Change, Copy, carry, check_optimizer, check_state, copy_of, operate
from diffstruct.width.patterns import by_name, check_price, chosen
from diffstruct.width.width import Width

EARNING_RULE = Rule(
    threshold=UnitPrice().nats,
    reserve=0.3,
    min_reserve=4,
    p_add=0.05,
    p_delete=0.1,
    p_spontaneous=0,
    max_units=4096,
    grace_period=0.1,
)
"""For units that are judged by what they earn: many newborns, and each has its trial."""

OUTGOING_RULE = Rule(
    threshold=0.05,
    reserve=1,
    p_add=0.05,
    p_delete=0.05,
    p_spontaneous=0,
    max_units=4096,
    redraw_after=1000,
)
"""For units that are judged by norms: the paper's, and dead ones are drawn anew.

A reserve that is a fraction of the width grows faster, in O(log W) events, but under Adam with an L1 price
without end: a new unit crosses the threshold within an update or two, so the reserve is always short.
"""


class Structure:
    """Learn the widths of `model` while it trains.

    Call `step` after each step of the optimizer: it takes the price, asks the rule, and, if anything
    changes, carries it out on parameters, gradients and optimizer state. Tensor objects stay the same
    ones, so nothing has to be registered anew.

    Args:
        model: any module, also a compiled one, with `example_inputs`; without, one with layers of
            `diffstruct.nn` that have been told what they feed.
        optimizer: any of `torch.optim` but LBFGS and SparseAdam; or several, where the parameters are
            divided among them.
        example_inputs: the model's positional arguments, as a tuple, or its keyword arguments, as a dict,
            such as it is trained on. The model runs on them a few times, and is left as it was; `explain`
            says what was found.
        updates: steps in which the structure is learned, most often those of the whole run: the times of rule
            and price are fractions of it. After that, sizes stay as they are.
        predictions: that the loss is the mean of, in one step; None: as many as the model makes for
            `example_inputs` (rows of its first output, all but the last dimension; of images, pixels), or 1
            without these.
        reduction: `"mean"`, or `"sum"` where the loss is the sum over the predictions.
        salience: what a unit is judged by: `"earnings"`, the nats of loss that it saves;
            `"outgoing"`, the L1 norm of its outgoing weights; or `"multiplier"`, a trainable factor
            per unit: a `ds.nn.Multiplier` of the model's or, with `example_inputs`, one that
            parametrizes the weights that read the unit until `finish`.
        price: what units pay per update, `UnitPrice` for earnings, `L1Price` for the others.
        rule: when units come and go; one rule, or rules by patterns of the widths' names. Its threshold
            is the price in nats where units are judged by earnings, `price.nats` by default.
        start: units that each width starts from; None keeps the sizes that the model came with; by patterns
            of names where widths differ.
        include: patterns of the names of widths to learn; the others keep their sizes.
        exclude: patterns of widths to leave out of these.
        granularity: sizes are multiples of this, as tensor cores like them; by patterns where widths differ.
        every: units are judged at every so many steps, as strongly as they would in these, so that it costs
            next to nothing. None: by earnings 5,000 times in the run, but at every 16th step at least;
            else at every step for declared widths, at every 16th for those that are found.
        seed: of the generator that the rule and the new units draw from.

    Raises:
        StructureError: the model has no width that could be learned, or does not run on the example inputs,
            or an optimizer cannot follow.
        ConfigurationError: a parameter that cannot work.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        example_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
        updates: int = 10_000,
        predictions: float | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        salience: Literal["earnings", "outgoing", "multiplier"] = "earnings",
        price: UnitPrice | L1Price | None = None,
        rule: Rule | Mapping[str, Rule] | None = None,
        start: int | Mapping[str, int | None] | None = 1,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        granularity: int | Mapping[str, int] = 1,
        every: int | None = None,
        seed: int = 0,
    ) -> None:
        self.optimizers = [optimizer] if isinstance(optimizer, Optimizer) else [*optimizer]
        for each in self.optimizers:
            check_optimizer(each)
        kinds = ["earnings", *SALIENCES]
        if salience not in kinds:
            raise ConfigurationError(f"salience must be one of {kinds}, got {salience!r}")
        if not (isinstance(updates, int) and updates >= 1):
            raise ConfigurationError(f"updates must be a whole number of at least 1, got {updates!r}")
        if predictions is not None and not (predictions > 0 and math.isfinite(predictions)):
            raise ConfigurationError(f"predictions must be a number above 0, got {predictions!r}")
        self.model: nn.Module = getattr(model, "_orig_mod", model)  # what torch.compile has wrapped
        self.widths: dict[str, Width]
        self.refused: list[Refusal] = []
        proof: Proof | None = None
        if example_inputs is None:
            declared = declared_widths(self.model)
            self.widths = {name: each for name, each in declared.items() if chosen(name, include, exclude)}
        else:
            self.widths, self.refused, proof = traced_widths(self.model, example_inputs, include, exclude)
        self._need_widths()
        if salience == "multiplier" and example_inputs is not None:
            self.widths = attach(self.widths, self.optimizers)
        if every is None:
            often = 1 if example_inputs is None else 16
            every = min(16, max(1, updates // 5000)) if salience == "earnings" else often
        self.every = every
        if self.every < 1:
            raise ConfigurationError(f"every must be at least 1, got {every}")
        if reduction not in ("mean", "sum"):
            raise ConfigurationError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
        self.price = price or (UnitPrice() if salience == "earnings" else L1Price(1e-4))
        if isinstance(self.price, UnitPrice) != (salience == "earnings"):
            raise ConfigurationError(
                f"a {type(self.price).__name__} does not go with salience={salience!r}: units that are "
                "judged by earnings pay a UnitPrice, all others an L1Price"
            )
        default = OUTGOING_RULE
        if isinstance(self.price, UnitPrice):
            default = replace(EARNING_RULE, threshold=self.price.nats)
        self.rules = by_name(rule or default, self.widths, default, "rule")
        self.granularity = by_name(granularity, self.widths, 1, "granularity")
        for name, one in self.rules.items():
            check_price(self.price, one, updates, name)
        self._rules = {name: each.timed(updates, self.every) for name, each in self.rules.items()}
        self.history = History()
        self.updates = 0
        self._finished = False
        self._kind = salience
        self.generator = np.random.default_rng(seed)
        thresholds = {name: each.threshold for name, each in self.rules.items()}
        self._newborn = Newborn(thresholds, self.generator, salience)
        self._last: dict[str, Change] = {}
        self._proof = proof
        self._copies: list[Copy] = []
        self.ledger: ImportanceTracker | None = None
        """What units have earned, where they are judged by it."""
        self._start(by_name(start, self.widths, 1, "start"), proof)
        self.states = {name: RuleState.newborn(width.size) for name, width in self.widths.items()}
        """What the rule remembers of each width's units."""
        self._spare = {name: np.zeros(width.size, np.bool_) for name, width in self.widths.items()}
        if isinstance(self.price, UnitPrice):
            if predictions is None:
                predictions = 1.0 if proof is None else proof.predictions
            longest = self.every * max(int(each.grace_period) for each in self._rules.values())
            self.ledger = ImportanceTracker(
                self.widths, self.price, predictions, reduction, updates, self.every, longest
            )
            self.ledger.open = self.every == 1
        self._hooks = []
        if isinstance(self.price, L1Price) and self.price.how == "gradient":
            self._hooks = [
                each.register_step_pre_hook(self._before_optimizer_step) for each in self.optimizers
            ]

    def rule_now(self, name: str) -> Rule:
        """The rule of a width, its times in decisions, as it is for the next update."""
        rule = self._rules[name]
        if self.ledger is not None and self.updates + 1 >= self.ledger.last_call:
            return replace(rule, p_add=0.0, p_spontaneous=0.0)
        return rule

    def _need_widths(self) -> None:
        if not self.widths:
            raise StructureError(
                f"{type(self.model).__name__} has no width that could be learned"
                + (f":\n{self.explain()}" if self.refused else ": include and exclude leave none")
            )

    def _start(self, start: Mapping[str, int | None], proof: Proof | None) -> None:
        """Cut every width down to where it starts from."""
        for width in self.widths.values():
            # Which refuse a width that they cannot judge.
            if self._kind == "earnings":
                trained_readers(width)
            else:
                self._salience(width)
            for slot in width.slots:
                for optimizer in self.optimizers:
                    check_state(optimizer, slot.tensor)
        changes = first_changes(self.widths, start, self.rules, self.granularity)
        if proof is not None and changes:
            for name, refusal in cannot_start(changes, proof).items():
                self.refused.append(refusal)
                del changes[name], self.widths[name]
            self._need_widths()
        operate(changes.values(), self.optimizers)

    def follow(self, copy: nn.Module) -> None:
        """Keep a copy of the model at the same sizes: an average of its weights, or a teacher.

        Args:
            copy: of the same sizes as the model now, such as `torch.optim.swa_utils.AveragedModel(model)`.

        Raises:
            StructureError: it is no copy of the model.
        """
        self._copies.append(copy_of(self.model, copy, self.widths.values()))

    def step(self) -> tuple[Event, ...]:
        """Take the price, decide, and change the structure; call it after each step of the optimizer.

        Returns:
            What changed, one event for each width that did; empty at most updates.

        Raises:
            DivergenceError: a salience is not finite; nothing has changed then.
            StructureError: the structure is finished.
        """
        if self._finished:
            raise StructureError("the structure is finished: train on without step(), or make a new one")
        update = self.updates + 1
        if self.ledger is not None:
            self.ledger.open = (update + 1) % self.every == 0 and update < self.ledger.updates
        if update % self.every or (self.ledger is not None and update > self.ledger.updates):
            self._last = {}
            self.updates = update
            return ()
        self._collect()
        self._last = {}
        spare: dict[str, NDArray[np.bool_]] = {}
        decisions = {name: self._decide(width, spare) for name, width in self.widths.items()}
        events = self.carry_out(decisions)
        self._spare.update(spare)
        return events

    def _salience(self, width: Width) -> Tensor:
        """What each unit is judged by, `[n]`."""
        return SALIENCES[self._kind](width) if self.ledger is None else self.ledger.saliences(width)

    def _collect(self) -> None:
        """Take the price for the last `every` steps."""
        if self.ledger is not None:
            ages = {name: state.ages for name, state in self.states.items()}
            self.ledger.update(ages)
            self.ledger.apply_decay(ages, self._rules, self.optimizers, self.updates + 1)
        elif isinstance(self.price, L1Price):
            late = replace(self.price, strength=self.price.strength * self.every)
            for tensor, which in paying(self.widths.values(), self._kind):
                late.after_step(tensor, which)

    def _decide(self, width: Width, spare: dict[str, NDArray[np.bool_]]) -> Decision:
        name, saliences = width.name, self._salience(width)
        rule, memory, grain = self.rule_now(name), self.states[name], self.granularity[name]
        if grain == 1:
            return rule.decide(saliences, memory, self.generator)
        values = saliences.detach().double().cpu().numpy()
        live = np.flatnonzero(~self._spare[name] | (values > rule.threshold))
        asked = torch.from_numpy(live).to(saliences.device)
        decision = rule.decide(
            saliences[asked], RuleState(memory.ages[live], memory.risen[live]), self.generator
        )
        whole = in_multiples(decision, live, values, memory, grain)
        spare[name] = whole.spare
        return whole.decision

    def carry_out(self, decisions: Mapping[str, Decision], updates: int = 1) -> tuple[Event, ...]:
        """Change the structure as was decided, by `step` or by a training loop that asks the rule itself.

        Args:
            decisions: one for each width, by name.
            updates: how many there were since the last call.

        Returns:
            What changed, one event for each width that did.
        """
        self._last = {}
        changes = {
            name: Change(self.widths[name], decision.keep, decision.add)
            for name, decision in decisions.items()
            if decision.changes
        }
        if changes:
            operate(changes.values(), self.optimizers, self._newborn, self._copies)
        # Only now: had the surgery failed, all that is remembered would still fit the model.
        if self.ledger is not None:
            self.ledger.resize(changes)
        self._last = changes
        self.states = {name: decision.state for name, decision in decisions.items()}
        self.updates += updates
        if self.ledger is not None:
            self.ledger.refresh(self._rules, self.updates)
        events = tuple(self._event(name, decisions[name]) for name in self._last)
        self.history.events.extend(events)
        return events

    def _event(self, name: str, decision: Decision) -> Event:
        kept = set(decision.keep)
        removed = tuple(unit for unit in range(decision.size) if unit not in kept)
        return Event(self.updates, name, removed, decision.add, decision.new_size)

    def finish(self) -> nn.Module:
        """Remove the reserve, and all that is ours; return the plain model.

        Of each width the units stay whose salience is above the threshold, one at least. The optimizer goes
        on working; `step` does not. The running means of a `BatchNorm` are still of the units that have gone:
        `torch.optim.swa_utils.update_bn(loader, model)` takes them anew.

        Raises:
            StructureError: a `ds.nn.Multiplier` cannot be folded into what reads it.
        """
        changes = []
        for name, width in self.widths.items():
            values, rule = self._salience(width).detach().cpu(), self.rules[name]
            above = int((values > rule.threshold).sum())
            count = min(multiple(max(above, rule.min_units), self.granularity[name]), width.size)
            best = values.argsort(descending=True, stable=True)[:count].sort().values
            if count < width.size:
                changes.append(Change(width, tuple(best.tolist()), 0))
        operate(changes, self.optimizers, copies=self._copies)
        if self.ledger is not None:
            self.ledger.detach()
        for hook in self._hooks:
            hook.remove()
        detach(self.model)
        self._finished = True
        return plain(self.model, self.widths.values(), self._proof)

    def carry(self, state: Any, width: str | None = None) -> Any:
        """Carry a hidden state through what the last `step` changed.

        Args:
            state: a tensor `[..., units]`, or a tuple of such (as an LSTM has), or None.
            width: the name of the width; may be left out where the model has one.

        Returns:
            The state for the next update: survivors bit-equal, new units zero; the same object when
            nothing changed.

        Raises:
            StructureError: the state does not fit the width, or it is unclear which width is meant.
        """
        if width is None:
            if len(self.widths) > 1:
                raise StructureError(f"say which width the state belongs to: one of {[*self.widths]}")
            width = next(iter(self.widths))
        if width not in self.widths:
            raise StructureError(f"there is no width {width!r}: the widths are {[*self.widths]}")
        change = self._last.get(width)
        if change is None or state is None:
            return state
        if isinstance(state, (tuple, list)):
            return type(state)(carry(part, change) for part in state)
        return carry(state, change)

    def _before_optimizer_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for tensor, which in paying(self.widths.values(), self._kind):
            if id(tensor) in mine and isinstance(self.price, L1Price):
                self.price.before_step(tensor, which)

    def explain(self) -> str:
        """Which sizes of the model are not learned, and why: a line each."""
        return "\n".join(map(str, self.refused))

    def __str__(self) -> str:
        rows = [("width", "units", "reserve", "added", "removed", "places")]
        for name, width in self.widths.items():
            reserve = int((self._salience(width) <= self.rules[name].threshold).sum())
            rows.append(
                (
                    name,
                    str(width.size),
                    str(reserve),
                    str(self.history.added(name)),
                    str(self.history.removed(name)),
                    ", ".join(map(str, width.slots)),
                )
            )
        spans = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(c.ljust(span) for c, span in zip(row, spans, strict=True)) for row in rows]
        return "\n".join([f"Structure after {self.updates} updates", *(line.rstrip() for line in lines)])
