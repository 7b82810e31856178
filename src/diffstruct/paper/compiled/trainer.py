"""The paper's training loop at full speed: whole updates in compiled code."""

from __future__ import annotations

import math

import numpy as np
import torch

from diffstruct.paper.compiled.arrays import array, memories_of, parameters_of
from diffstruct.paper.compiled.criteria import Nothing, compiled_criterion, has_compiled_form
from diffstruct.paper.compiled.loop import DIVERGED, advance
from diffstruct.paper.compiled.network import Tensors
from diffstruct.paper.compiled.optimizers import compiled_optimizer
from diffstruct.paper.network import DefectiveMultiplier
from diffstruct.paper.tasks import SEQUENCE, Stretch
from diffstruct.paper.training import Trainer, diverged
from diffstruct.rule import RuleNumbers, RuleState, decision

_NO_RULE = RuleNumbers(1.0, 0, 0.0, 0.0, 0.0, 1, 1, 0, 0)
"""In the place of a rule where none is asked."""


class FusedTrainer(Trainer):
    """A `Trainer` that makes its updates in one compiled loop; arguments as there.

    Model, optimizer and structure are the ordinary ones: the loop works in their memory, with the criterion
    and the rule that they use, and leaves each change of structure to `Structure.carry_out`. Of a criterion
    that has no compiled form, the updates that a decision is about are made by PyTorch, and those between
    them here. With the same seed both trainers decide the same, until rounding, in which they differ, moves
    an importance across the threshold.
    """

    stride = 1000

    def prepare(self) -> None:
        """Compile the loop, or load it if that was done before: about ten seconds, or one."""
        self._until_a_change(Stretch(torch.zeros(0, dtype=torch.int64), 0, 0, False), 0)

    def advance(self, stretch: Stretch) -> None:
        """Learn from every window of a stretch.

        Raises:
            DivergenceError: a loss is not finite, and that update has not been made; or an importance is not,
                and the structure has not changed.
        """
        if stretch.restart:
            self._state = None
        done = 0
        while done < stretch.windows:
            if self._alone() == 0:
                self.update(stretch.window(done))
                done += 1
            else:
                done += self._until_a_change(stretch, done)

    def _alone(self) -> int | None:
        """For how many updates the structure lets the network alone; None where compiled code acts for it."""
        structure = self.structure
        if structure is None or has_compiled_form(structure.criterion):
            return None
        return structure.next_decision() - structure.steps - 1

    def _until_a_change(self, stretch: Stretch, done: int) -> int:
        """Go on with a stretch of which `done` windows are read; return how many more are."""
        structure, state = self.structure, self._state
        if state is None:
            state = torch.zeros(1, self.units, dtype=self._one_hot.dtype)
        real = array(state).dtype.type
        parameters = parameters_of(self.model)
        multiplier = self.model.multiplier
        updates, alone = stretch.windows - done, self._alone()
        learning = structure is not None and structure.steps < structure.training.total_steps
        if structure is not None and learning and alone is None:
            memory, generator = structure.states["rnn"], structure.training.generator
            criterion = compiled_criterion(structure.criterion, real)
            importances = structure.criterion.importance(structure.widths["rnn"])
            numbers = structure.rule_now("rnn").numbers(self.units, importances.dtype)
            left = structure.training.total_steps - structure.steps
            updates = min(updates, left, structure.until_sample())
        else:
            learning = False
            memory, generator = RuleState.initial(self.units), np.random.default_rng(0)
            criterion, numbers = Nothing(), _NO_RULE
            updates = updates if alone is None else min(updates, alone)
        reason, made, self.smoothed, loss, removed, add = advance(
            stretch.text.numpy(),
            stretch.position + done * SEQUENCE,
            SEQUENCE,
            updates,
            Tensors(*map(array, parameters)),
            None if multiplier is None else isinstance(multiplier, DefectiveMultiplier),
            compiled_optimizer(
                self.optimizer, memories_of(self.optimizer, parameters), real, multiplier is not None
            ),
            self.updates,
            criterion,
            learning,
            array(state)[0],
            self.smoothed,
            self.revision.smoothing,
            memory.ages,
            memory.risen,
            generator,
            numbers,
        )
        self.updates += made
        for entry in self.optimizer.state.values():
            if "step" in entry:
                entry["step"] += made
        torch.autograd.graph.increment_version(parameters)  # lest a graph from before go unnoticed
        if reason == DIVERGED:
            if math.isfinite(loss):
                raise diverged("a unit's importance is not finite", self.updates)
            raise diverged(f"the loss is {loss}", self.updates + 1)
        self._state = state
        if structure is not None:
            if learning:
                structure.carry_out({"rnn": decision(removed, add, memory)}, made)
                self._state = structure.carry(state)
            else:
                structure.skip(made)
        return int(made)
