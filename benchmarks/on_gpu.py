"""What `Structure` costs beside training on a GPU: `python benchmarks/on_gpu.py [--device DEVICE]`.

A GPU works while the program goes on, so that single calls cannot be timed. Whole windows of steps are,
with a structure and without, in turn; each window has the same number of decisions. Nothing is added or
removed, and all outgoing weights decay, as they do most of the time.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from overhead import BATCH, STILL, gpt, resnet
from timing import spread
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments" / "widths"))
from transformer import Transformer

import diffstruct as ds
from diffstruct.rule import RuleState

STEPS, DECISIONS = 10_000, 2
"""Steps of the run that the structure is made for; decisions in a window."""

Case = tuple[nn.Module, tuple[Tensor, ...], Tensor]


def mlp(width: int) -> Case:
    """Two hidden layers."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([784, width, width]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    return model, (torch.randn(BATCH, 784),), torch.randint(10, (BATCH,))


def transformer() -> Case:
    """That of `experiments/shapes`, as wide as it begins there."""
    text = torch.randint(256, (BATCH, 65))
    return Transformer(768, 12, 96, 16, 64, 2), (text[:, :-1],), text[:, 1:]


MODELS: dict[str, Callable[[], Case]] = {
    **{f"MLP, 2 x {width}": partial(mlp, width) for width in (64, 256, 512, 1024)},
    "ResNet, 16 to 64 channels": resnet,
    "transformer, 0.5M parameters": transformer,
    "GPT, 10M parameters": gpt,
}


def measure(name: str, device: torch.device, budget: bool, rounds: int) -> dict[str, Any]:
    """The share of a training step that the structure takes, with a budget or without."""
    torch.manual_seed(0)
    model, inputs, target = MODELS[name]()
    model, inputs, target = model.to(device), tuple(each.to(device) for each in inputs), target.to(device)
    alone = copy.deepcopy(model)
    optimizer, other = (torch.optim.Adam(each.parameters(), lr=1e-3) for each in (model, alone))
    size = sum(parameter.numel() for parameter in model.parameters())
    structure = ds.Structure(
        model,
        optimizer,
        example_inputs=inputs,
        rule=STILL,
        total_steps=STEPS,
        budget=ds.Budget(parameters=size) if budget else None,
    )
    structure.states = {
        width: RuleState(state.ages + STEPS, state.risen) for width, state in structure.states.items()
    }
    steps = DECISIONS * structure.training.interval

    def window(trained: nn.Module, by: torch.optim.Optimizer, after: Callable[[], object]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        for _ in range(steps):
            loss = nn.functional.cross_entropy(trained(*inputs).flatten(0, -2), target.flatten())
            by.zero_grad()
            loss.backward()
            by.step()
            after()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - begin) / steps

    training, shares = [], []
    for turn in range(rounds + 1):
        plain = window(alone, other, lambda: None)
        learned = window(model, optimizer, structure.step)
        if turn:  # the first warms up
            training.append(1e3 * plain)
            shares.append(learned / plain - 1)
    return {"model": name, "train_ms": spread(training), "step_over_train": spread(shares)}


def main() -> None:
    """Measure every model and print a table."""
    parser = argparse.ArgumentParser(prog="python benchmarks/on_gpu.py", description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--rounds", type=int, default=15, help="windows of either kind (default: 15)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | budget | training step, ms | `structure.step()` |\n| --- | --- | --- | --- |")
    for name in MODELS:
        for budget in (False, True):
            row = measure(name, options.device, budget, options.rounds)
            step = row["step_over_train"]
            print(
                f"| {name} | {'yes' if budget else 'no'} | {row['train_ms']['median']:.2f} | "
                f"{step['median']:.1%} ({step['q25']:.1%} to {step['q75']:.1%}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
