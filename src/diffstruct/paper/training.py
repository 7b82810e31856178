"""The paper's training loop: one sequence a step, hidden state carried over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diffstruct.errors import DivergenceError, StructureError
from diffstruct.paper.revisions import Revision, build
from diffstruct.paper.tasks import SEQUENCE, Stretch, Window
from diffstruct.structure import History


class Trainer:
    """Trains one network of the paper, step by step.

    Args:
        revision: the paper's constants.
        symbols: size of the alphabet.
        seed: of the weights and of the structure.
        fixed_units: as in `revisions.build`.
        dtype: of all parameters.
        start_units: as in `revisions.build`.
    """

    stride: ClassVar[int] = 10
    """Steps that take so little time that no progress need be shown in between."""

    def __init__(
        self,
        revision: Revision,
        symbols: int,
        seed: int,
        fixed_units: int | None = None,
        dtype: torch.dtype = torch.float32,
        start_units: int = 1,
    ) -> None:
        network = build(revision, symbols, seed, fixed_units, dtype, start_units)
        self.model, self.optimizer, self.structure = (
            network.model,
            network.optimizer,
            network.structure,
        )
        self._history = History()
        self.revision = revision
        self.updates = 0
        self.smoothed = SEQUENCE * math.log(symbols)
        """Moving average of the loss in nats per sequence; begins at the loss of equal probabilities."""
        self._state: Tensor | None = None
        self._one_hot = torch.eye(symbols, dtype=dtype)

    @property
    def units(self) -> int:
        """Hidden units now."""
        return self.model.rnn.hidden_size

    @property
    def history(self) -> History:
        """Of the structure; of a network of a fixed size, an empty one."""
        return self._history if self.structure is None else self.structure.history

    def prepare(self) -> None:
        """Do in advance what the first step would have to wait for."""

    def advance(self, stretch: Stretch) -> None:
        """Learn from every window of a stretch; see `update`."""
        for window in stretch.split():
            self.update(window)

    def update(self, window: Window) -> float:
        """Learn from one window; return its loss in nats, summed over the window.

        Raises:
            DivergenceError: the loss is not finite; nothing has changed then.
        """
        if window.restart:
            self._state = None
        logits, state = self.model(self._one_hot[window.inputs], self._state)  # [steps, symbols]
        loss = F.cross_entropy(logits, window.targets, reduction="sum")
        value = loss.item()
        if not math.isfinite(value):
            raise diverged(f"the loss is {value}", self.updates + 1)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self._state = state.detach()
        if self.structure is not None:
            self.structure.step()
            self._state = self.structure.carry(self._state)
        self.updates += 1
        decay = self.revision.smoothing
        self.smoothed = decay * self.smoothed + (1 - decay) * value
        return value

    def state_dict(self) -> dict[str, Any]:
        """All that the next update depends on: plain values, and the tensors themselves, not copies."""
        return {
            "updates": self.updates,
            "smoothed": self.smoothed,
            "hidden": self._state,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "structure": None if self.structure is None else self.structure.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another trainer of the same arguments was; its tensors are copied.

        Raises:
            StructureError: the state is that of another network, or does not fit itself. The trainer is of
                no use then.
        """
        if self.structure is not None:
            self.structure.load_state_dict(state["structure"])  # which brings the others to its sizes
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(deepcopy(state["optimizer"]))  # it would take tensors over as they are
        hidden = state["hidden"]
        self._state = None if hidden is None else hidden.clone()
        self.updates, self.smoothed = state["updates"], state["smoothed"]
        self._check_shapes()

    def _check_shapes(self) -> None:
        """Compiled code, which works in all this memory, looks at no bounds."""
        kept = [(self._one_hot.new_empty(1, self.units), self._state)]
        for parameter, entries in self.optimizer.state.items():
            kept += [(parameter, value) for name, value in entries.items() if name != "step"]
        for like, value in kept:
            if value is not None and (value.shape != like.shape or value.dtype != like.dtype):
                raise StructureError(
                    f"expected a tensor of shape {[*like.shape]} ({like.dtype}) in the trainer's state, "
                    f"got {[*value.shape]} ({value.dtype})"
                )


def diverged(what: str, step: int) -> DivergenceError:
    """The error of a training run that has diverged."""
    return DivergenceError(f"{what} at step {step}: the weights have diverged")
