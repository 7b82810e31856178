"""Loops as users write them, killed and resumed: four state dicts in one file, or one call for all."""

from __future__ import annotations

import hashlib
import json
import os
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import diffstruct as ds

STEPS, BATCH = 240, 32


class Convolutional(nn.Module):
    """A residual network with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.inner, self.norm = nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.back, self.head = nn.Conv2d(12, 8, 3, padding=1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, 1, 6, 6]` in, `[batch, 3]` out."""
        x = self.stem(x)
        x = x + self.back(torch.relu(self.norm(self.inner(x))))
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    """An LSTM, and a readout of its last state."""

    def __init__(self, lstm: type[nn.Module]) -> None:
        super().__init__()
        self.lstm, self.head = lstm(3, 16), nn.Linear(16, 3)
        if hasattr(self.lstm, "feeds"):
            self.lstm.feeds(self.head)

    def forward(self, x: Tensor) -> Tensor:
        """`[steps, batch, 3]` in, `[batch, 3]` out."""
        return self.head(self.lstm(x)[0][-1])


def blocks() -> nn.Module:
    """Residual blocks, whose number is learned too."""

    def block() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8))

    return nn.Sequential(nn.Linear(4, 8), ds.nn.Residual(block, depth=3), nn.Linear(8, 3))


def perceptron() -> nn.Module:
    """With dropout, whose random numbers have to go on as well."""
    return nn.Sequential(
        nn.Linear(4, 24), nn.ReLU(), nn.Dropout(0.1), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 3)
    )


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=3e-3)


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


@dataclass(frozen=True)
class Loop:
    """A loop: its model, its optimizer, the shape of an example, where its batch lies, and options."""

    model: Callable[[], nn.Module]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    shape: tuple[int, ...]
    batch: int = 0
    options: dict[str, Any] = field(default_factory=dict)


_GROWS = {"start": 1, "rule": ds.Rule(max_units=40, grace_period=0.05)}
CASES = {
    "MLP": Loop(perceptron, _adamw, (4,)),
    "MLP from one unit": Loop(perceptron, _sgd, (4,), options={"start": 1}),
    "MLP, growing beyond its sizes": Loop(perceptron, _adamw, (4,), options=_GROWS),
    "MLP with a budget": Loop(perceptron, _adamw, (4,), options={"budget": ds.Budget(parameters=250)}),
    "CNN": Loop(Convolutional, _sgd, (1, 6, 6)),
    "CNN with a budget": Loop(Convolutional, _adamw, (1, 6, 6), options={"budget": ds.Budget(flops=30_000)}),
    "LSTM of torch.nn": Loop(partial(Recurrent, nn.LSTM), _adamw, (5, 3), 1),
    "LSTM of diffstruct from one unit": Loop(partial(Recurrent, ds.nn.LSTM), _adamw, (5, 3), 1, {"start": 1}),
    "blocks, from one": Loop(blocks, _adamw, (4,), options={"start": {"1": 1}}),
}
SAVES = ("torch.save", "torch.save, structure first", "ds.checkpoint")


def batch_of(loop: Loop, step: int) -> tuple[Tensor, Tensor]:
    """The batch of a step, always the same: examples, and the largest of three sums that they have."""
    chance = torch.Generator().manual_seed(step)
    x = torch.randn(BATCH, *loop.shape, generator=chance)
    y = torch.stack([part.flatten(1).sum(1) for part in x.flatten(1).tensor_split(3, 1)], 1).argmax(1)
    return x.movedim(0, loop.batch), y


def begin(folder: Path, case: str, seed: int) -> int:
    """Train without saving anything; 0 for success."""
    return train(folder, case, seed, SAVES[0], STEPS + 1)


def work(folder: Path, case: str, seed: int, chance: random.Random) -> tuple[Any, Any]:
    """What begins a loop, and what goes on with it, which is the same; how it is saved is drawn."""
    both = partial(train, folder, case, seed, chance.choice(SAVES), chance.choice([1, 7, 20]))
    return both, both


def train(folder: Path, case: str, seed: int, how: str, every: int) -> int:
    """Train from where the folder says, or from the beginning, and save every so often; 0 for success."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    loop = CASES[case]
    model = loop.model()
    optimizer = loop.optimizer(model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    inputs = (batch_of(loop, STEPS)[0],)
    options = dict(loop.options)
    structure = ds.Structure(
        model, optimizer, example_inputs=inputs, total_steps=STEPS, interval=2, seed=seed, **options
    )
    objects = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "structure": structure}
    file, step, losses = folder / "run.pt", 0, []
    if file.exists():
        state = torch.load(file, weights_only=True)
        for name in [*objects] if how == "torch.save" else [*objects][::-1]:
            objects[name].load_state_dict(state[name])
        step, losses = state["step"], state["losses"]
        torch.set_rng_state(state["chance"])
    elif ds.checkpoint.latest(folder / "saved"):
        values = ds.checkpoint.load(folder / "saved", **objects)
        step, losses = values["step"], values["losses"]
        torch.set_rng_state(values["chance"])
    while step < STEPS:
        x, y = batch_of(loop, step)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        structure.step()
        step += 1
        losses.append(loss.item())
        if step % every == 0:
            extra = {"step": step, "losses": losses, "chance": torch.get_rng_state()}
            if how.startswith("torch.save"):
                states = {name: each.state_dict() for name, each in objects.items()}
                torch.save({**states, **extra}, folder / "aside.pt")
                os.replace(folder / "aside.pt", file)
            else:
                ds.checkpoint.save(folder / "saved", keep=1, **objects, **extra)
    trained = _digest(optimizer.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ds.StructureWarning)
        model = structure.finish()
    record = {
        "losses": losses,
        "events": [vars(event) for event in structure.history.events],
        "weights": _digest(model.state_dict()),
        "optimizer": trained,
        "chance": _digest(torch.get_rng_state()),
    }
    (folder / "record.json").write_text(json.dumps(record))
    return 0


def _digest(state: Any) -> str:
    """A hash of every bit of a state dict."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {[*value.shape]}".encode())
            digest.update(value.detach().contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key, each in value.items():
                digest.update(repr(key).encode())
                add(each)
        elif isinstance(value, (list, tuple)):
            for each in value:
                add(each)
        else:
            digest.update(repr(value).encode())

    add(state)
    return digest.hexdigest()


def differences(one: Path, other: Path) -> list[str]:
    """What two finished loops differ in, and should not."""
    records = [json.loads((folder / "record.json").read_bytes()) for folder in (one, other)]
    return [name for name in records[0] if records[0][name] != records[1][name]]


def changes(folder: Path) -> int:
    """How often sizes changed in a loop."""
    return len(json.loads((folder / "record.json").read_bytes())["events"])
