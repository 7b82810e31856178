"""What `Structure` costs beside training: a step in which nothing changes, and an event.

Each as a share of a training step (forward, backward, Adam) of the same model, taken in turn with it. The
step of the structure is the mean over the steps between two decisions, with what its hooks do in one of the
backward passes in between. In an event one unit is added to a width and another removed, in each width of
the model in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from statistics import mean
from typing import Any

import torch
from models import GPT, ResNet
from timing import ratio, spread
from torch import Tensor, nn

import diffstruct as ds
from diffstruct.rule import RuleState

BATCH = 32
STILL = ds.Rule(p_add=0, p_delete=0, max_units=100_000)


def mlp() -> tuple[nn.Module, tuple[Tensor, ...], Tensor]:
    """Three hidden layers of 512."""
    sizes = [784, 512, 512, 512]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(512, 10))
    return model, (torch.randn(BATCH, 784),), torch.randint(10, (BATCH,))


def resnet() -> tuple[nn.Module, tuple[Tensor, ...], Tensor]:
    """Three stages of two basic blocks, 16 to 64 channels, pictures of 32 by 32."""
    return ResNet(), (torch.randn(BATCH, 3, 32, 32),), torch.randint(10, (BATCH,))


def gpt() -> tuple[nn.Module, tuple[Tensor, ...], Tensor]:
    """About ten million parameters, 64 tokens."""
    text = torch.randint(256, (BATCH, 65))
    return GPT(), (text[:, :-1],), text[:, 1:]


MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...], Tensor]]] = {
    "MLP, 3 x 512": mlp,
    "ResNet, 16 to 64 channels": resnet,
    "GPT, 10M parameters": gpt,
}


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Time one model; return a row of the table."""
    torch.manual_seed(0)
    model, inputs, target = MODELS[name]()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    begin = time.perf_counter()
    structure = ds.Structure(
        model, optimizer, example_inputs=inputs, start=None, rule=STILL, total_steps=1_000_000
    )
    # Past the grace period, so that all outgoing weights decay, as they do most of the time.
    structure.states = {
        width: RuleState(state.ages + 10**6, state.risen) for width, state in structure.states.items()
    }
    tracker = structure.criterion.tracker
    found = time.perf_counter() - begin

    def train() -> None:
        loss = nn.functional.cross_entropy(model(*inputs).flatten(0, -2), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def seconds(call: Callable[[], object]) -> float:
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin

    train()
    tracker.recording = True
    training, steps, events = [], [], []
    for _ in range(rounds):
        training.append(seconds(train))
        tracker.recording = True
        recording = seconds(lambda: [tracker.record_gradients(*each) for each in tracker.readers])
        interval = structure.training.interval
        steps.append(mean(seconds(structure.step) for _ in range(interval)) + recording / interval)
        events.append(
            mean(seconds(lambda width=width: event(structure, width)) for width in structure.widths)
        )
    return {
        "model": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "widths": len(structure.widths),
        "found_s": found,
        "train_ms": spread([1e3 * value for value in training]),
        "step_over_train": ratio(steps, training),
        "event_over_train": ratio(events, training),
    }


def event(structure: ds.Structure, name: str) -> None:
    """Replace the first unit of one width."""
    decisions = {}
    for other, width in structure.widths.items():
        keep = tuple(range(1 if other == name else 0, width.size))
        add = int(other == name)
        decisions[other] = ds.Decision(width.size, keep, add, RuleState.initial(width.size))
    structure.carry_out(decisions)


def table(rounds: int) -> list[dict[str, Any]]:
    """Measure every model; print a table, return its rows."""
    print(
        "| model | parameters | widths | training step, ms | `structure.step()` | event, in training steps |"
    )
    print("|---|---|---|---|---|---|")
    rows = []
    for name in MODELS:
        row = measure(name, rounds)
        rows.append(row)
        step, change = row["step_over_train"], row["event_over_train"]
        print(
            f"| {name} | {row['parameters']:,} | {row['widths']} | {row['train_ms']['median']:,.1f} | "
            f"{100 * step['median']:.2f}% ({100 * step['q25']:.2f}-{100 * step['q75']:.2f}) | "
            f"{change['median']:.2f} ({change['q25']:.2f}-{change['q75']:.2f}) |",
            flush=True,
        )
    return rows
