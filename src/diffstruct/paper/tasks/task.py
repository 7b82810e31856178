"""A task: a text to predict, and the best loss possible on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffstruct.errors import ConfigurationError

SEQUENCE = 40
"""Characters per step."""

LENGTH = 1_200_000
"""Characters in a generated text, as in the author's program."""

BRACKETS = "()ab"
"""The alphabet of the paper's tasks; the generators below write its indices 0 to 3."""


@dataclass(frozen=True, eq=False)
class Task:
    """A text to predict, and how well it can be predicted.

    Args:
        name: shown to the user.
        alphabet: its distinct symbols, sorted.
        length: characters in its text.
        make: draws a text, `[length]` int64 indices into `alphabet`; `text` calls it.
        floor: the text's entropy in nats per character, None where it is unknown.
        plateau: the loss in nats per character of a network that has learned all but the task's
            hardest part, None where there is no such loss or it is unknown.
    """

    name: str
    alphabet: str
    length: int
    make: Callable[[torch.Generator], Tensor] = field(repr=False)
    floor: float | None = None
    plateau: float | None = None

    def text(self, generator: torch.Generator) -> Tensor:
        """Draw a text with `generator` (on the CPU): `[length]` int64 indices into `alphabet`."""
        text = self.make(generator)
        assert text.shape == (self.length,)
        assert text.dtype == torch.int64
        return text


def need(holds: bool, name: str, what: str, got: object) -> None:
    """Raise a `ConfigurationError` that names the parameter and what it must be, unless it `holds`."""
    if not holds:
        raise ConfigurationError(f"{name} must be {what}, got {got!r}")
