"""A byte-level language model of the Python standard library's own sources."""

from __future__ import annotations

import math
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from task import Size, Study, Task
from torch import Tensor, nn
from transformer import Transformer

CONTEXT, BATCH, UPDATES, RATE = 64, 32, 3000, 1e-3
SCORED = 2048
"""Windows of the validation text that are scored, evenly spread over it."""


@cache
def _text() -> tuple[Tensor, Tensor]:
    """The modules that are one file, one after the other in order of name; the last tenth to validate."""
    folder = Path(sysconfig.get_path("stdlib"))
    # _sysconfigdata was written by the compiler of this machine, and holds paths on it.
    files = sorted(file for file in folder.glob("*.py") if not file.name.startswith("_sysconfigdata"))
    raw = b"".join(file.read_bytes() for file in files)
    text = torch.from_numpy(np.frombuffer(raw, dtype=np.uint8).copy())
    return text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]


def windows(text: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """The `CONTEXT` bytes from each start, and the byte that follows each of them."""
    found = text[starts[:, None] + torch.arange(CONTEXT + 1)].long()
    return found[:, :-1], found[:, 1:]


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats per byte."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def _task(seed: int, quick: bool) -> Task:
    train, validation = _text()  # the same for every seed, which draws weights and windows
    updates, scored = (4, 32) if quick else (UPDATES, SCORED)

    def build(size: Size) -> nn.Module:
        return Transformer(*size, context=CONTEXT)

    def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(updates):
            yield windows(train, torch.randint(len(train) - CONTEXT, (BATCH,), generator=generator))

    def score(model: nn.Module) -> dict[str, float]:
        starts = torch.linspace(0, len(validation) - CONTEXT - 1, scored, dtype=torch.float64).long()
        parts = [windows(validation, part) for part in starts.split(64)]
        nats = sum(loss(model(x), y).item() * len(x) for x, y in parts) / scored
        return {"bits per byte": nats / math.log(2)}

    return Task(build, batches, loss, score, RATE, updates, every=50)


STUDIES = (
    Study(
        "bytes-lm",
        "bytes of Python, a transformer of two blocks",
        ((64, 1), (128, 2), (256, 4)),
        {"bits per byte": ".3f"},
        _task,
        seeds=3,
    ),
)
