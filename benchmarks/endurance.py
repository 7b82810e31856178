"""Growth and deletion without end: do memory and speed stay flat?

`python benchmarks/endurance.py --minutes 60` trains a residual network whose units are judged by lot, so that
some come and go all the time, blocks among them. It prints a row for each tenth of the time: updates and
events so far, updates in a second of CPU time, the memory of the process, and how many tensors and other
Python objects there are in it.
"""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path

import torch
from torch import nn

import diffstruct as ds
from diffstruct.structure import deepening

ROWS = 10
STEPS = 10**7
"""Planned, so that no annealing ends the growth."""


class Branch(nn.Module):
    """A residual branch."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.LayerNorm(24), nn.Linear(24, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 24)
        self.branch = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input, and what the branch makes of it."""
        return x + self.branch(x)


class ByLot(ds.TaylorImportance):
    """Units are judged by lot, after all that is done to judge them by what they win."""

    def importance(self, width: ds.Width) -> torch.Tensor:
        """Random numbers from 0 to 1."""
        super().importance(width)
        return torch.rand(width.size)

    def fair_share(self, name: str) -> float:
        """Any block pays."""
        return 1e9

    def worth(self, name: str, units: object) -> float:
        """It has paid."""
        return 1e9


def memory() -> float:
    """MiB that the process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main() -> None:
    """Train for so many minutes, and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    seconds = 60 * parser.parse_args().minutes
    torch.set_num_threads(1)
    torch.manual_seed(0)
    deepening.WAIT = 1e-4  # of the run: other blocks may come soon after the last
    blocks = nn.Sequential(*(Branch() for _ in range(3)))
    model = nn.Sequential(nn.Linear(8, 24), blocks, nn.LayerNorm(24), nn.Linear(24, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    rule = ds.Rule(threshold=0.3, max_units=32, p_add=0.02, p_delete=0.02, reserve=0.3, grace_period=0)
    structure = ds.Structure(
        model,
        optimizer,
        example_inputs=(torch.randn(64, 8),),
        total_steps=STEPS,
        interval=16,
        depth=["1"],
        criterion=ByLot(),
        rule={"1": ds.Rule(threshold=0.1, p_delete=0.01, max_units=6, grace_period=0), "*": rule},
    )
    print(
        f"{'minutes':>8}{'updates':>10}{'events':>8}{'updates/s':>11}{'MiB':>8}{'tensors':>9}{'objects':>9}"
    )
    begin, row, updates, cpu = time.monotonic(), 1, 0, time.process_time()
    since = 0
    while row <= ROWS:
        x = torch.randn(64, 8)
        target = ((x[:, :4] * x[:, 4:]).sin() + x[:, 1:5]).argmax(1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), target).backward()
        optimizer.step()
        structure.step()
        updates, since = updates + 1, since + 1
        if time.monotonic() - begin > row * seconds / ROWS:
            rate = since / (time.process_time() - cpu)
            gc.collect()
            objects = gc.get_objects()
            tensors = sum(issubclass(type(each), torch.Tensor) for each in objects)
            events = len(structure.history.events)
            print(
                f"{(time.monotonic() - begin) / 60:8.1f}{updates:10}{events:8}{rate:11.1f}{memory():8.1f}"
                f"{tensors:9}{len(objects):9}",
                flush=True,
            )
            del objects
            row, since, cpu = row + 1, 0, time.process_time()
    print(structure)


if __name__ == "__main__":
    main()
