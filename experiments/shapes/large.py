"""Ten million parameters on a GPU, learned beside uniform shapes: `python experiments/shapes/large.py`.

Bytes of all modules of Python's standard library, 1,500 steps of 32 windows of 256 bytes, Adam, 100 steps of
warming up to a rate of 0.001 and a cosine down to a tenth of it, bfloat16; the same for all.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import sysconfig
import time
import warnings
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path += [str(FOLDER.parent), str(FOLDER.parent / "widths")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from transformer import Transformer  # noqa: E402

import diffstruct as ds  # noqa: E402

CONTEXT, BATCH, STEPS, HEAD, BYTES, SCORED = 256, 32, 1500, 64, 22_000_000, 1024
RATE, WARMING, LEAST = 1e-3, 100, 0.1
"""The learning rate, the steps in which it rises to that, and the part of it that is left at the end."""

UNIFORM = ((1536, 6, 384, 6), (2392, 8, 512, 3), (680, 8, 512, 6), (2640, 6, 384, 4))
"""Feed-forward units, heads, channels of the stream, blocks: four ways to spend the budget."""

OWN, BUDGET = (2048, 8, 512, 6), 10_935_808
"""What learned models begin from, and what they may have at the end: as many as the first uniform one."""


def text() -> tuple[Tensor, Tensor]:
    """All modules, one after the other in order of their paths; the last tenth to validate."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = (file for file in folder.rglob("*.py") if not {"site-packages", "__pycache__"} & {*file.parts})
    kept = sorted(file for file in files if not file.name.startswith("_sysconfigdata"))
    raw = np.frombuffer(b"".join(file.read_bytes() for file in kept)[:BYTES], dtype=np.uint8)
    whole = torch.from_numpy(raw.copy())
    return whole[: len(whole) * 9 // 10], whole[len(whole) * 9 // 10 :]


def windows(source: Tensor, starts: Tensor) -> Tensor:
    """The bytes from each start, `[windows, CONTEXT + 1]`."""
    return source[starts[:, None] + torch.arange(CONTEXT + 1)]


def loss_of(model: nn.Module, window: Tensor) -> Tensor:
    """Nats per byte."""
    window = window.long()
    with torch.autocast(window.device.type, torch.bfloat16):
        logits = model(window[:, :-1])
    return F.cross_entropy(logits.float().flatten(0, 1), window[:, 1:].flatten())


def rate(step: int) -> float:
    """The learning rate of a step."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / STEPS))
    return RATE * min(1.0, (step + 1) / WARMING) * (LEAST + (1 - LEAST) * cosine)


def train(shape: tuple[int, int, int, int], learned: bool, seed: int, device: str) -> dict[str, Any]:
    """Train a model and measure it."""
    source, validation = text()
    torch.manual_seed(seed)
    inner, heads, dim, blocks = shape
    model: nn.Module = Transformer(inner, heads, dim, HEAD, CONTEXT, blocks).to(device)
    chance = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    structure = None
    begin = time.monotonic()
    for step in range(STEPS):
        starts = torch.randint(len(source) - CONTEXT, (BATCH,), generator=chance)
        batch = windows(source, starts).to(device)
        if learned and structure is None:
            example, budget = batch[:8, :-1].long(), ds.Budget(parameters=BUDGET)
            structure = ds.Structure(
                model, optimizer, example_inputs=(example,), total_steps=STEPS, seed=seed, budget=budget
            )
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        loss = loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if structure is not None:
            structure.step()
    sizes = {}
    if structure is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ds.StructureWarning)
            model = structure.finish()
        sizes = {name: width.size for name, width in structure.widths.items()}
    seconds = time.monotonic() - begin
    model.eval()
    with torch.no_grad():
        starts = torch.linspace(0, len(validation) - CONTEXT - 1, SCORED, dtype=torch.float64).long()
        parts = windows(validation, starts).to(device).split(64)
        nats = sum(loss_of(model, part).item() * len(part) for part in parts) / SCORED
    parameters = sum(parameter.numel() for parameter in model.parameters())
    found = {"bits": nats / math.log(2), "parameters": parameters, "seconds": seconds, "sizes": sizes}
    return {"shape": shape, "learned": learned, "seed": seed, **found}


def main() -> None:
    """Train all, and print a line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    for seed in range(options.seeds):
        for shape, learned in (*((shape, False) for shape in UNIFORM), (OWN, True)):
            print(json.dumps(train(shape, learned, seed, options.device)), flush=True)


if __name__ == "__main__":
    main()
