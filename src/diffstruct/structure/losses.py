"""The losses that `Structure.step` is given, read at the decision, so that no step waits for a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from diffstruct.distributed import Processes
from diffstruct.errors import ConfigurationError

LAST = 32
"""So many losses before a decision are averaged over, at most."""


class Losses:
    """The losses of the last steps."""

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self._last: deque[Tensor | float] = deque(losses, maxlen=LAST)

    def add(self, loss: Tensor | float) -> None:
        """Keep the loss of a step: a copy of a tensor, whose memory a captured graph may use again.

        Raises:
            ConfigurationError: it is no number, and no tensor with one.
        """
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self._last.append(loss.detach().clone())
        elif isinstance(loss, (int, float)):
            self._last.append(float(loss))
        else:
            got = f"a tensor of shape {[*loss.shape]}" if isinstance(loss, Tensor) else repr(loss)
            raise ConfigurationError(
                f"step(loss) takes the loss of the step, a number or a tensor with one number, got {got}"
            )

    def values(self) -> list[float]:
        """The losses as numbers, the last one last. From here on they are numbers, which nobody waits for."""
        alike = {(each.device, each.dtype) for each in self._last if isinstance(each, Tensor)}
        if len(alike) == 1 and all(isinstance(each, Tensor) for each in self._last):  # one transfer for all
            stacked = torch.stack([each.reshape(()) for each in self._last if isinstance(each, Tensor)])
            values = stacked.double().cpu().tolist()
        else:
            values = [float(each) for each in self._last]
        self._last = deque(values, maxlen=LAST)
        return values

    def mean(self, processes: Processes) -> float | None:
        """The mean loss, over all processes as well, each of which counts alike; None where there is none."""
        values = self.values()
        mean = sum(values) / len(values) if values else 0.0
        total, count = processes.sum(np.array([mean, float(bool(values))])).tolist()
        return total / count if count else None

    def of_all(self, processes: Processes) -> list[float]:
        """The means of the last losses over all processes that have some, which have to ask together."""
        values = self.values()
        table = np.zeros((2, LAST))  # from the last one on
        table[:, : len(values)] = values[::-1], np.ones(len(values))
        total, count = processes.sum(table)
        known = count > 0
        means: list[float] = (total[known] / count[known])[::-1].tolist()
        return means

    def clear(self) -> None:
        """Begin anew: they have been recorded."""
        self._last.clear()
