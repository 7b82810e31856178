"""When a structure decides, and what: the criterion, then the rule."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

from diffstruct.history import Event
from diffstruct.rule import Decision, Rule
from diffstruct.structure.changing import ChangingStructure
from diffstruct.structure.decide import decide_all
from diffstruct.structure.joining import join
from diffstruct.structure.sampling import measurement_of, sample_of


class DecidingStructure(ChangingStructure):
    """Decides, for `Structure.step`, or with a training loop that asks the rule itself: `next_decision`,
    `until_sample` and `rule_now` tell it when and how, `skip` and `carry_out` are told what it did."""

    def next_decision(self) -> int:
        """The number of the next step that a decision is about; after the run, beyond all steps."""
        interval = 1 if self._widening is not None else self.training.interval
        step = (self.steps // interval + 1) * interval
        return step if step <= self.training.total_steps else sys.maxsize

    def until_sample(self) -> int:
        """Steps up to the next decision of which the history has a sample, with it; a training loop that asks
        the rule itself calls `carry_out` behind it."""
        interval = self.training.interval
        return self.history.sampling.until_next() * interval - self.steps % interval

    def skip(self, steps: int) -> None:
        """Count steps that no decision is about, which a training loop has made without `step`."""
        self._last = {}
        self.steps += steps
        self._record_next()

    def carry_out(self, decisions: Mapping[str, Decision], steps: int = 1) -> tuple[Event, ...]:
        """Change the structure as was decided, by `step` or by a training loop that asks the rule itself.

        Args:
            decisions: one for each width, by name.
            steps: how many there were since the last call.

        Returns:
            One event for each width that changed.
        """
        self._last = {}
        now, interval = self.steps + steps, self.training.interval
        with self._all_or_nothing() as undo:
            made = now // interval - self.steps // interval
            self.history.sample(lambda: sample_of(self, now), made)
            events = self._operate(decisions, self.criterion.initialize, steps, undo=undo)
            self._renew_guard(events, undo)
        return events

    def rule_now(self, name: str) -> Rule:
        """The rule of a width as it is for the next decision, its times in decisions."""
        rule = self.training.rules[name]
        may_add = self.criterion.may_add(self.steps + 1)
        return rule if may_add else replace(rule, p_add=0.0, p_spontaneous=0.0)

    def _widen(self, undo: ExitStack) -> tuple[Event, ...]:
        assert self._widening is not None
        events = self._operate(self._widening.decisions(self.states), self._widening.initialize, undo=undo)
        self._widening = None
        return events

    def _decide(self, undo: ExitStack) -> tuple[Event, ...]:
        self._measure(self.steps + 1)
        decisions, births = self._growth.decide(self.states, self.widths, self.criterion, self.steps + 1)
        if births:
            return self._operate(decisions, self.criterion.initialize, births=births, undo=undo)
        ages = {name: state.ages for name, state in self.states.items()}
        self.criterion.after_step(self.steps + 1, ages)
        importances = {name: self.criterion.importance(width) for name, width in self.widths.items()}
        rules = {name: self.rule_now(name) for name in self.widths}
        chance = self.training.generator
        found = decide_all(rules, importances, self.states, self._spare, self.multiple_of, chance)
        self.history.sample(lambda: sample_of(self, self.steps + 1))
        decisions = {name: whole.decision for name, whole in found.items()}
        spare = {name: whole.spare for name, whole in found.items()}
        return self._operate(decisions, self.criterion.initialize, spare=spare, undo=undo)

    def _measure(self, step: int) -> None:
        """Let the history know the losses since the last decision, if they were told."""
        loss = self._losses.mean(self.training.processes)
        if loss is not None:
            self.history.measure(lambda: measurement_of(self, step, loss))

    def _join(self) -> None:
        """Before the first decision, and of copies again: let all processes start from the same."""
        if self.training.processes.joined:
            return
        run = self.training
        facts = self.steps, run.total_steps, run.interval, run.rules, self.multiple_of
        remembered = [*self.criterion.remembered()]
        remembered += [] if self._widening is None else self._widening.remembered
        join(run.processes, self.widths, (*facts, run.generator.bit_generator.state), remembered)

    def _record_next(self) -> None:
        decides = self._widening is None and self.training.decides(self.steps + 1)
        self.criterion.record_next(decides)
        # The next step after which there is anything to do: the first of all looks for other processes, and
        # the one before a decision lets record.
        due = decides or not self.training.processes.joined
        self._due = self.steps + 1 if due else self.next_decision() - 1
