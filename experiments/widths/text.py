"""Two byte-level language models of the Python standard library's own sources: a transformer and a GRU."""

from __future__ import annotations

import math
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from task import Size, Study, Task
from torch import Tensor, nn
from transformer import Transformer

CONTEXT, BATCH, UPDATES = 64, 32, 1200
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


class GRU(nn.Module):
    """Predicts the next of 256 bytes."""

    def __init__(self, size: Size, dim: int = 32) -> None:
        super().__init__()
        self.token = nn.Embedding(256, dim)
        self.gru, self.readout = nn.GRU(dim, size[0], batch_first=True), nn.Linear(size[0], 256)

    def forward(self, text: Tensor) -> Tensor:
        """Bytes `[batch, time]` to logits `[batch, time, 256]`."""
        return self.readout(self.gru(self.token(text))[0])


def transformer(size: Size) -> nn.Module:
    """Of feed-forward units and heads."""
    return Transformer(*size, context=CONTEXT)


def language_task(build: Callable[[Size], nn.Module], rate: float, seed: int, quick: bool) -> Task:
    """The next byte, of the standard library; the arguments as of `task.Task` and `task.Study`."""
    train, validation = _text()  # the same for every seed, which draws weights and windows
    updates, scored = (4, 32) if quick else (UPDATES, SCORED)

    def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(updates):
            yield windows(train, torch.randint(len(train) - CONTEXT, (BATCH,), generator=generator))

    def score(model: nn.Module) -> float:
        starts = torch.linspace(0, len(validation) - CONTEXT - 1, scored, dtype=torch.float64).long()
        parts = [windows(validation, part) for part in starts.split(64)]
        nats = sum(loss(model(x), y).item() * len(x) for x, y in parts) / scored
        return nats / math.log(2)

    return Task(build, batches, loss, score, rate, updates)


METRIC = "bits per byte", ".3f"
STUDIES = (
    Study(
        "bytes-gru",
        "bytes of Python, a GRU",
        ((16,), (32,), (64,), (96,), (128,), (192,), (256,)),
        (192,),
        *METRIC,
        partial(language_task, GRU, 3e-3),
        regulariser=None,  # it finds nothing to cut in nn.GRU
        language=True,
    ),
    Study(
        "bytes-lm",
        "bytes of Python, a transformer of two blocks",
        ((64, 1), (128, 2), (256, 4), (384, 6), (512, 8), (768, 12)),
        (768, 12),
        *METRIC,
        partial(language_task, transformer, 1e-3),
        shares=(1 / 4, 3 / 8, 1 / 2, 3 / 4),  # an eighth of it are embeddings and readout
        regulariser=1e-6,
        language=True,
    ),
)
