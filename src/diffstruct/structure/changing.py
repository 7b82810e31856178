"""What a structure consists of, and how that changes: the one place that all changes go through."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from torch import nn

from diffstruct.couple import FoundWidths
from diffstruct.criteria import Criterion, Training
from diffstruct.history import Event, History
from diffstruct.interrupts import held
from diffstruct.rule import Decision, RuleState
from diffstruct.structure.configuration import write_sizes
from diffstruct.structure.deepening import Growth
from diffstruct.structure.finish import finished
from diffstruct.structure.finite import Guard
from diffstruct.structure.hooks import ActsBeforeSteps
from diffstruct.structure.losses import Losses
from diffstruct.structure.operation import block_watch, carried, operate_on, told
from diffstruct.structure.retreat import all_or_nothing, at_risk, remember
from diffstruct.structure.run import training_after
from diffstruct.structure.widening import Widening
from diffstruct.surgery import Birth, Change, Initialize
from diffstruct.width import Followed, Width


class ChangingStructure(ActsBeforeSteps):
    """The state of a `Structure`, and what carries decisions out."""

    model: nn.Module
    criterion: Criterion
    training: Training
    widths: dict[str, Width]
    multiple_of: dict[str, int]
    states: dict[str, RuleState]
    """What the rule remembers of the units of each width."""
    history: History
    steps: int
    """Made so far."""
    guard: Guard

    _found: FoundWidths
    _spare: dict[str, NDArray[np.bool_]]
    _growth: Growth
    _widening: Widening | None
    _losses: Losses
    _last: dict[str, Change]
    """What the last step has changed."""
    _finished: bool
    _due: int
    """The next step after which there is anything to do."""
    _loads: int
    """State dicts that were loaded into the model since the last step, beyond the one that follows a state
    dict of the structure's."""

    @abstractmethod
    def _record_next(self) -> None:
        """Let the criterion record what the next step shows, or not."""

    @contextmanager
    def _all_or_nothing(self) -> Iterator[ExitStack]:
        """To do something as a whole or, if anything fails, not at all."""
        at_stake = at_risk(self.model, [*self.widths.values()])
        # Signals wait until the wrapper has followed, too.
        with held(), self.training.processes.following(), all_or_nothing(self, *at_stake) as undo:
            yield undo

    def _renew_guard(self, events: Sequence[Event], undo: ExitStack) -> None:
        if events:  # buffers are others now
            undo.callback(self.guard.forget)
            self.guard.renew()

    def _operate(
        self,
        decisions: Mapping[str, Decision],
        initialize: Initialize,
        steps: int = 1,
        births: Mapping[str, Sequence[Birth]] = MappingProxyType({}),
        spare: Mapping[str, NDArray[np.bool_]] = MappingProxyType({}),
        undo: ExitStack | None = None,
    ) -> tuple[Event, ...]:
        """Carry decisions out, and count steps; `undo` gets to know what undoes the surgery."""
        changes = {
            name: Change(self.widths[name], decision.keep, decision.add)
            for name, decision in decisions.items()
            if decision.changes
        }
        followed = block_watch(self.model, self.widths, changes, births)
        if steps:  # else a state is loaded
            self.training.processes.agree(told(decisions, births, self.widths), "their decisions")
        if changes:
            undo, copies, processes = undo or ExitStack(), self.training.copies, self.training.processes
            if copies:
                undo.callback(remember(*at_risk(self.model, [*self.widths.values()], copies)))
            run = self.training.optimizers, initialize, copies, processes
            processes.changing()
            undo.callback(operate_on(self.model, changes, births, *run))
        self._last = changes
        self.states = {name: decision.state for name, decision in decisions.items()}
        fresh = {name: np.zeros(change.new_size, np.bool_) for name, change in changes.items()}
        self._spare = {**self._spare, **fresh, **spare}
        self.steps += steps
        costs = self.criterion.costs()
        self.criterion.resize(changes, self.steps)
        events = self.history.record(self.steps, changes, costs)
        self._follow(followed())
        return events

    def _follow(self, followed: Mapping[str, Followed]) -> None:
        """Blocks have come or gone: go on with the widths that there are now."""
        if not followed:
            return
        self.widths = {name: each.width for name, each in followed.items()}
        self._found.widths = dict(self.widths)
        self.states = carried(self.states, followed, RuleState.initial)
        self._spare = carried(self._spare, followed, lambda size: np.zeros(size, np.bool_))
        self.multiple_of = {name: self.multiple_of[each.name] for name, each in followed.items()}
        stay = {name: each.name for name, each in followed.items() if not each.new}
        self._last = {name: self._last[was] for name, was in stay.items() if was in self._last}
        self.training = training_after(self.training, followed, self._found)
        origin = {name: stay.get(name) for name in followed}
        self.criterion.follow(self.widths, self.training, origin)
        self.history.names.append((len(self.history.events), origin))

    def _end(self, keep: Mapping[str, tuple[int, ...]], undo: ExitStack) -> tuple[nn.Module, list[str]]:
        """Remove all units but those to keep, and all that is ours; the plain model, and what to say."""
        processes = self.training.processes
        run = self.model, self.widths, self.criterion, keep, self._found.proof
        processes.changing()
        plain, changes, followed = finished(*run, undo)
        undo.callback(processes.replace, self.model)
        processes.replace(plain)
        for name, change in changes.items():
            stay, memory = [*change.keep], self.states[name]
            self.states[name] = RuleState(memory.ages[stay], memory.risen[stay])
            self._spare[name] = self._spare[name][stay]
        costs = self.criterion.costs()
        self.criterion.resize(changes, self.steps)
        self._last = changes
        self.history.record(self.steps, changes, costs)
        self._follow(followed)
        remarks = self.criterion.remarks()
        self.criterion.detach()
        self._let_go()
        self.widths, self._widening = dict(self._found.widths), None
        self._finished, self._due = True, 0
        copies = [copy.modules[self.model] for copy in self.training.copies]
        sharded = self.training.processes.sharding is not None
        unsaid = write_sizes(plain, self.widths, None if sharded else self._found.proof, copies)
        return plain, [*remarks, unsaid] if unsaid else remarks
