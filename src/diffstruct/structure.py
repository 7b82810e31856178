"""Structure: ties salience, price, rule and surgery to a model and its optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from diffstruct.couple import declared_widths
from diffstruct.errors import ConfigurationError, StructureError
from diffstruct.history import Event, History
from diffstruct.newborn import Newborn
from diffstruct.optimizers import check_optimizer, check_state
from diffstruct.price import L1Price
from diffstruct.rule import Decision, Rule, RuleState
from diffstruct.salience import PRICED, SALIENCES
from diffstruct.surgery import Change, carry, operate
from diffstruct.width import Width


class Structure:
    """Learn the widths of `model` while it trains.

    Call `step` after each step of the optimizer: it takes the price, asks the rule, and, if anything
    changes, carries it out on parameters, gradients and optimizer state. Tensor objects stay the same
    ones, so nothing has to be registered anew.

    Args:
        model: a model with layers of `diffstruct.nn` that have been told what they feed.
        optimizer: any of `torch.optim` but LBFGS and SparseAdam; or several, where the parameters are
            divided among them.
        rule: when units come and go; the default is that of the paper's revision 3.
        salience: `"outgoing"`, the L1 norm of a unit's outgoing weights, or `"multiplier"`, for models
            with a `ds.nn.Multiplier`.
        price: what units pay per update; the default is that of revision 3, as an exact proximal step.
        start: units that each width starts from; None keeps the sizes that the model came with.
        seed: of the generator that the rule and the new units draw from.

    Raises:
        StructureError: the model declares no width, or an optimizer cannot follow.
        ConfigurationError: a parameter that cannot work.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        rule: Rule | None = None,
        salience: Literal["outgoing", "multiplier"] = "outgoing",
        price: L1Price | None = None,
        start: int | None = 1,
        seed: int = 0,
    ) -> None:
        self.optimizers = [optimizer] if isinstance(optimizer, Optimizer) else [*optimizer]
        for each in self.optimizers:
            check_optimizer(each)
        if salience not in SALIENCES:
            raise ConfigurationError(f"salience must be one of {[*SALIENCES]}, got {salience!r}")
        self.rule = rule or Rule(threshold=0.05, p_add=0.01, p_delete=0.05)
        self.price = price or L1Price(1e-4)
        if self.price.floor is not None and self.price.floor >= self.rule.threshold:
            raise ConfigurationError(
                f"threshold must be above the floor of the price, {self.price.floor}, below which no "
                f"salience falls, got {self.rule.threshold}"
            )
        self.widths: dict[str, Width] = declared_widths(model)
        self.history = History()
        self.updates = 0
        self._salience = SALIENCES[salience]
        self._priced = PRICED[salience]
        self.generator = np.random.default_rng(seed)
        self._newborn = Newborn(self.rule.threshold, self.generator, salience)
        self._last: dict[str, Change] = {}
        for width in self.widths.values():
            self._check(width, start)
        if start is not None:
            first = tuple(range(start))
            operate([Change(width, first, 0) for width in self.widths.values()], self.optimizers)
        self.states = {name: RuleState.newborn(width.size) for name, width in self.widths.items()}
        """What the rule remembers of each width's units."""
        if self.price.how == "gradient":
            for each in self.optimizers:
                each.register_step_pre_hook(self._before_optimizer_step)

    def _check(self, width: Width, start: int | None) -> None:
        """Refuse, before anything is cut, what would fail at the first step."""
        self._salience(width)
        for slot in width.slots:
            for optimizer in self.optimizers:
                check_state(optimizer, slot.tensor)
        if start is not None and not 1 <= start <= width.size:
            raise ConfigurationError(
                f"start must be between 1 and the {width.size} units that width {width.name!r} came with, "
                f"got {start}"
            )
        size = width.size if start is None else start
        if not self.rule.min_units <= size <= self.rule.max_units:
            raise ConfigurationError(
                f"width {width.name!r} starts with {size} units, outside the rule's {self.rule.min_units} "
                f"to {self.rule.max_units}: change start, min_units or max_units"
            )

    def step(self) -> tuple[Event, ...]:
        """Take the price, decide, and change the structure; call it after each step of the optimizer.

        Returns:
            What changed, one event for each width that did; empty at most updates.

        Raises:
            DivergenceError: a salience is not finite; nothing has changed then.
        """
        for tensor in self._priced_tensors():
            self.price.after_step(tensor)
        self._last = {}
        decisions = {
            name: self.rule.decide(self._salience(width), self.states[name], self.generator)
            for name, width in self.widths.items()
        }
        return self.carry_out(decisions)

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
            operate(changes.values(), self.optimizers, self._newborn)
        # Only now: had the surgery failed, all that is remembered would still fit the model.
        self._last = changes
        self.states = {name: decision.state for name, decision in decisions.items()}
        self.updates += updates
        events = tuple(self._event(name, decisions[name]) for name in self._last)
        self.history.events.extend(events)
        return events

    def _event(self, name: str, decision: Decision) -> Event:
        kept = set(decision.keep)
        removed = tuple(unit for unit in range(decision.size) if unit not in kept)
        return Event(self.updates, name, removed, decision.add, decision.new_size)

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

    def _priced_tensors(self) -> list[Tensor]:
        """The tensors that pay, each once, whatever it is shared by."""
        slots = (slot for width in self.widths.values() for slot in width.having(*self._priced))
        return [*{id(slot.tensor): slot.tensor for slot in slots}.values()]

    def _before_optimizer_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for tensor in self._priced_tensors():
            if id(tensor) in mine:
                self.price.before_step(tensor)

    def __str__(self) -> str:
        rows = [("width", "units", "reserve", "added", "removed", "places")]
        for name, width in self.widths.items():
            reserve = int((self._salience(width) <= self.rule.threshold).sum())
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
