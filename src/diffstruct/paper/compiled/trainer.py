"""The paper's training loop at full speed: whole updates in compiled code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffstruct.criteria.l1 import L1Price, UnitPrice
from diffstruct.paper.compiled import earning, network
from diffstruct.paper.revisions import GRADIENT_LIMIT, LARGEST_NORM
from diffstruct.paper.rmsprop import ClippedRMSprop
from diffstruct.paper.tasks import SEQUENCE, Stretch
from diffstruct.paper.training import Trainer, diverged
from diffstruct.rule.rule import Rule, RuleState


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
            rule, memory, generator = structure.rule_now("rnn"), structure.states["rnn"], structure.generator
        parameters = self._parameters()
        own = self.revision.salience == "earnings"
        advance = self._advance_earning if own else self._advance_paper
        reason, made, self.smoothed, loss, gone, add = advance(
            stretch, done, parameters, state, rule, memory, generator
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

    def _advance_paper(
        self,
        stretch: Stretch,
        done: int,
        parameters: Sequence[Tensor],
        state: Tensor,
        rule: Rule,
        memory: RuleState,
        generator: np.random.Generator,
    ) -> Any:
        (squares,) = self._memories(parameters)
        return network.advance(
            stretch.text.numpy(),
            stretch.position + done * SEQUENCE,
            SEQUENCE,
            stretch.windows - done,
            network.Tensors(*map(_array, parameters)),
            squares,
            _array(state)[0],
            self.smoothed,
            self._constants(),
            memory.ages,
            memory.risen,
            generator,
            rule.numbers(self.units, state.dtype),
        )

    def _advance_earning(
        self,
        stretch: Stretch,
        done: int,
        parameters: Sequence[Tensor],
        state: Tensor,
        rule: Rule,
        memory: RuleState,
        generator: np.random.Generator,
    ) -> Any:
        means, squares = self._memories(parameters)
        ledger = None if self.structure is None else self.structure.ledger
        updates = stretch.windows - done
        fisher, mean, earned = np.zeros((self.units, self.units)), np.zeros(self.units), np.zeros(self.units)
        if ledger is not None:
            fisher, mean, earned = ledger.fisher["rnn"], ledger.mean_slopes["rnn"], ledger.earned["rnn"]
            # No further than to where earnings are worked out anew, or the rule is another one.
            updates = min(updates, ledger.refresh_every - self.updates % ledger.refresh_every)
            if self.updates + 1 < ledger.last_call:
                updates = min(updates, ledger.last_call - 1 - self.updates)
        return earning.advance(
            stretch.text.numpy(),
            stretch.position + done * SEQUENCE,
            SEQUENCE,
            updates,
            network.Tensors(*map(_array, parameters)),
            means,
            squares,
            self.updates,
            _array(state)[0],
            self.smoothed,
            self._earning_constants(rule),
            fisher,
            mean,
            earned,
            memory.ages,
            memory.risen,
            generator,
            rule.numbers(self.units, torch.float64),
        )

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

    def _memories(self, parameters: Sequence[Tensor]) -> list[network.Tensors]:
        """Each thing that the optimizer keeps for the parameters' entries, in the same order as these."""
        states = [self._states(parameter) for parameter in parameters]
        return [network.Tensors(*each) for each in zip(*states, strict=True)]

    def _states(self, parameter: Tensor) -> list[NDArray[Any]]:
        """What the optimizer keeps for each entry of a parameter; of one that it does not train, anything."""
        optimizer, names = self.optimizer, ["sum"]
        if isinstance(optimizer, ClippedRMSprop):
            initial = {p: group["initial"] for group in optimizer.param_groups for p in group["params"]}
            if parameter in initial:
                optimizer.square_avg(parameter, initial[parameter])
            names = ["square_avg"]
        elif isinstance(optimizer, torch.optim.Adam):
            names = ["exp_avg", "exp_avg_sq"]
            trained = (p for group in optimizer.param_groups for p in group["params"])
            if parameter not in optimizer.state and any(p is parameter for p in trained):
                optimizer.state[parameter] = {"step": torch.zeros(())} | {
                    name: torch.zeros_like(parameter) for name in names
                }
        state = optimizer.state.get(parameter, {})
        return [_array(state.get(name, parameter)) for name in names]

    def _earning_constants(self, rule: Rule) -> earning.Constants:
        real = _array(self._one_hot).dtype.type
        group = self.optimizer.param_groups[0]
        price, ledger = self.revision.price, None if self.structure is None else self.structure.ledger
        assert isinstance(price, UnitPrice)
        return earning.Constants(
            ruled=ledger is not None,
            lr=real(group["lr"]),
            beta1=real(group["betas"][0]),
            beta2=real(group["betas"][1]),
            eps=real(group["eps"]),
            longest=LARGEST_NORM,
            predictions=1.0 if ledger is None else ledger.predictions,
            share=1.0 if ledger is None else ledger.share,
            rate=1.0 if ledger is None else ledger.rate,
            unit_price=rule.threshold,
            strength=price.strength * group["lr"],
            power=price.power,
            grace_period=int(rule.grace_period),
            rise=1 if ledger is None else ledger.rise,
            updates=1 if ledger is None else ledger.updates,
            ease=price.ease,
            smoothing=self.revision.smoothing,
        )

    def _constants(self) -> network.Constants:
        real = _array(self._one_hot).dtype.type
        group = self.optimizer.param_groups[0]
        price = self.revision.price
        assert isinstance(price, L1Price)
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
