"""The loss that a trainer has at hand, for the history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diffstruct.history import Measurement
from diffstruct.structure import Structure


def loss_in(outputs: Any, trainer: Any, module: Any) -> Tensor | None:
    """The loss of the last batch among what a `training_step` of Lightning has returned, if it is there.

    Args:
        outputs: a tensor, or a mapping with a `"loss"`.
        trainer: divides it by the number of batches for a step, if it steps optimizers itself.
        module: of Lightning.
    """
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        return None
    return loss.detach() * (trainer.accumulate_grad_batches if module.automatic_optimization else 1)


def enter(structure: Structure, loss: float) -> None:
    """Let the history know a loss that is a number already."""
    units = sum(width.size for width in structure.widths.values())
    structure.history.measure(lambda: Measurement(structure.steps, loss, units))
