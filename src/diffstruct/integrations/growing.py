"""Training of the perceptron of the scikit-learn estimators, whose widths are learned meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from diffstruct.criteria import Budget, TaylorImportance
from diffstruct.integrations.perceptron import hidden_widths, perceptron
from diffstruct.structure import Structure

Losses: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets in, the loss of each sample out: `[samples]`."""


def cross_entropies(outputs: Tensor, target: Tensor) -> Tensor:
    """In nats; outputs are logits."""
    return nn.functional.cross_entropy(outputs, target, reduction="none")


def squares(outputs: Tensor, target: Tensor) -> Tensor:
    """The mean over the outputs."""
    return (outputs - target).square().mean(1)


class Growing:
    """A perceptron in training, with all that goes on with it.

    Args:
        sizes: of the input, the hidden layers and the output.
        activation: by the name that scikit-learn has for it.
        dtype: of the weights.
        losses: that are minimised.
        rate: the learning rate.
        passes: over the data, in which the structure is learned.
        batch: samples in a step.
        samples: in a pass.
        price: as of `TaylorImportance`.
        budget: parameters that the network may have in the end; None: any number.
        seed: of all that is drawn.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str,
        dtype: torch.dtype,
        losses: Losses,
        *,
        rate: float,
        passes: int,
        batch: int,
        samples: int,
        price: float,
        budget: int | None,
        seed: int,
    ) -> None:
        self.losses, self.batch = losses, batch
        self.random = np.random.default_rng(seed)
        chance = torch.Generator().manual_seed(int(self.random.integers(2**62)))
        self.network = perceptron(sizes, activation, dtype, chance)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=rate, fused=True)
        self.structure: Structure | None = Structure(
            self.network,
            self.optimizer,
            widths=hidden_widths(self.network),
            total_steps=passes * math.ceil(samples / batch),
            criterion=TaylorImportance(price=price),
            budget=None if budget is None else Budget(parameters=budget),
            seed=int(self.random.integers(2**62)),
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of the hidden layers."""
        layers = [each for each in self.network if isinstance(each, nn.Linear)]
        return tuple(each.out_features for each in layers[:-1])

    def train(self, x: Tensor, target: Tensor, weight: Tensor) -> float:
        """One pass over data in batches of a random order; when the structure is learned, it is finished.

        Args:
            x: `[samples, features]`.
            target: `[samples]` or `[samples, outputs]`.
            weight: `[samples]`, 1 in the mean.

        Returns:
            The mean loss.
        """
        lost = 0.0
        order = torch.from_numpy(self.random.permutation(len(x)))
        for some in torch.split(order, self.batch):
            loss = (weight[some] * self.losses(self.network(x[some]), target[some])).mean()
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            self.optimizer.step()
            lost += loss.item() * len(some) / len(x)
            if self.structure is not None:
                self.structure.step(loss.detach())
                if self.structure.steps >= self.structure.training.total_steps:
                    self.structure.finish()
                    self.structure = None
        return lost
