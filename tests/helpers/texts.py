"""Hand-made and drawn texts for the tests of the tasks."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from torch import Tensor

from diffstruct.paper import tasks
from diffstruct.paper.tasks import SEQUENCE, Phase, Task, Window


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def letters_of(text: Tensor, letters: int) -> Tensor:
    """The whole groups of a hard text without their parentheses: `[groups, letters]`."""
    width = letters + 2
    return text[: len(text) // width * width].view(-1, width)[:, 1:-1]


def flips_of(text: Tensor, letters: int) -> Tensor:
    """Where each group differs from the previous one reversed: `[groups - 1, letters]` bool."""
    groups = letters_of(text, letters)
    return groups[1:] != groups[:-1].flip(1)


def ramp(size: int, name: str = "ramp") -> Task:
    """A text that says where it is read: 0, 1, 2, ..."""
    return Task(name, "ab", size, lambda _: torch.arange(size))


def read(n: int, *phases: Phase, length: int = SEQUENCE, seed: int = 0) -> list[Window]:
    return list(islice(tasks.windows(phases, seeded(seed), length), n))


def spell(task: Task, text: Tensor) -> str:
    return "".join(task.alphabet[index] for index in text.tolist())


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message
