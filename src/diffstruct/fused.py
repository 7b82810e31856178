"""The paper's training loop at full speed: whole updates in compiled code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffstruct.kernels import network
from diffstruct.revisions import GRADIENT_LIMIT
from diffstruct.rmsprop import ClippedRMSprop
from diffstruct.rule import Rule, RuleState
from diffstruct.tasks import SEQUENCE, Stretch
from diffstruct.training import Trainer, diverged


class FusedTrainer(Trainer):
    """A `Trainer` that makes its updates in one compiled loop; arguments as there.

    Model, optimizer and structure are the ordinary ones: the loop works in their memory, with the price and
    the rule that they use, and leaves each change of structure to `Structure.carry_out`. With the same seed
    both trainers decide the same, until rounding, in which they differ, moves a salience across the
    threshold.
    """

    stride = 1000

    def prepare(self) -> None:
        """Compile the loop, or load it if that was done before: about ten seconds, or one."""
        self._until_a_change(Stretch(torch.zeros(0, dtype=torch.int64), 0, 0, False), 0)

    def advance(self, stretch: Stretch) -> None:
        """Learn from every window of a stretch.

        Raises:
            DivergenceError: a loss is not finite, and that update has not been made; or a salience is not,
                and the structure has not changed.
        """
        if stretch.restart:
            self._state = None
        done = 0
        while done < stretch.windows:
            done += self._until_a_change(stretch, done)

    def _until_a_change(self, stretch: Stretch, done: int) -> int:
        """Go on with a stretch of which `done` windows are read; return how many more are."""
        structure, state = self.structure, self._state
        if state is None:
            state = torch.zeros(1, self.units, dtype=self._one_hot.dtype)
        if structure is None:  # nobody asks the rule then
            rule, memory, generator = Rule(), RuleState.newborn(self.units), np.random.default_rng(0)
        else:
            rule, memory, generator = structure.rule, structure.states["rnn"], structure.generator
        parameters = self._parameters()
        reason, made, self.smoothed, loss, gone, add = network.advance(
            stretch.text.numpy(),
            stretch.position + done * SEQUENCE,
            SEQUENCE,
            stretch.windows - done,
            network.Tensors(*map(_array, parameters)),
            network.Tensors(*map(_array, self._accumulators())),
            _array(state)[0],
            self.smoothed,
            self._constants(),
            memory.ages,
            memory.risen,
            generator,
            rule.numbers(self.units, state.dtype),
        )
        self.updates += made
        for entry in self.optimizer.state.values():
            if "step" in entry:
                entry["step"] += made
        torch.autograd.graph.increment_version(parameters)  # lest a graph from before go unnoticed
        if reason == network.DIVERGED:
            if math.isfinite(loss):
                raise diverged("a unit's salience is not finite", self.updates)
            raise diverged(f"the loss is {loss}", self.updates + 1)
        self._state = state
        if structure is not None:
            structure.carry_out({"rnn": rule.decision(gone, add, memory)}, made)
            self._state = structure.carry(state)
        return int(made)

    def _parameters(self) -> list[Tensor]:
        """The network's parameters, in the order of `network.Tensors`."""
        rnn: Any = self.model.rnn  # whose parameters mypy does not know
        readout, multiplier = self.model.readout, self.model.multiplier
        return [
            rnn.weight_ih_l0,
            rnn.weight_hh_l0,
            readout.weight,
            rnn.bias_ih_l0,
            readout.bias,
            torch.ones_like(rnn.bias_ih_l0) if multiplier is None else multiplier.weight,
        ]

    def _accumulators(self) -> list[Tensor]:
        """What the optimizer keeps for each entry of the parameters, in the same order."""
        optimizer, parameters = self.optimizer, self._parameters()
        if isinstance(optimizer, ClippedRMSprop):
            initial = {p: group["initial"] for group in optimizer.param_groups for p in group["params"]}
            return [optimizer.square_avg(p, initial[p]) if p in initial else p for p in parameters]
        return [optimizer.state[p]["sum"] if p in optimizer.state else p for p in parameters]

    def _constants(self) -> network.Constants:
        real = _array(self._one_hot).dtype.type
        group = self.optimizer.param_groups[0]
        price = self.revision.price
        return network.Constants(
            multiplier=self.model.multiplier is not None,
            defect=self.revision.number == 1,
            ruled=self.structure is not None,
            adagrad=isinstance(self.optimizer, torch.optim.Adagrad),
            lr=real(group["lr"]),
            eps=real(group["eps"]),
            decay=real(group.get("decay", 0)),
            limit=real(group.get("limit", GRADIENT_LIMIT)),
            price=real(price.strength),
            floor=real(price.floor or 0),
            smoothing=self.revision.smoothing,
        )


def _array(tensor: Tensor) -> NDArray[Any]:
    """The tensor's memory, as an array."""
    array: NDArray[Any] = tensor.detach().numpy()
    return array
