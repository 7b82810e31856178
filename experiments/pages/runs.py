"""The three runs whose pages the docs show: `python experiments/pages/runs.py` makes them anew.

Their records go to `experiments/pages/records`, from which `make figures` takes the pictures. It takes about
three minutes.
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import diffstruct as ds
from diffstruct.paper.record import record_of_run
from diffstruct.report import Record

FOLDER = Path(__file__).parent
sys.path += [str(FOLDER), str(FOLDER.parent / "widths")]

from records import save  # noqa: E402
from transformer import Transformer  # noqa: E402  (of experiments/widths)

CONTEXT = 64


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the runs, and keep their records."""
    parser = argparse.ArgumentParser(prog="python experiments/pages/runs.py", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER / "records", help="folder of the records")
    parser.add_argument("--shorter", type=int, default=1, help="so many times, to see that it works")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for make, steps in ((transition, 100_000), (digits, 2_000), (transformer, 1_000)):
        save(make(max(60, steps // options.shorter)), options.out / f"{make.__name__}.json.xz")
        print(f"wrote {options.out / f'{make.__name__}.json.xz'}", flush=True)


def transition(steps: int) -> Record:
    """The paper's recurrent network on the task that becomes hard, and easy again."""
    run = ds.paper.Run("transition", cycles=steps)
    with TemporaryDirectory() as folder:
        status = run.go(folder)["status"]
    return record_of_run(run, status)


def digits(steps: int) -> Record:
    """A convolutional network that learns how many channels it needs for handwritten digits."""
    torch.manual_seed(0)
    found = load_digits()
    images, labels = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(found.target)
    model = nn.Sequential()
    for name, layer in {
        "conv1": nn.Conv2d(1, 32, 3, padding=1),
        "norm1": nn.BatchNorm2d(32),
        "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(32, 48, 3, padding=1),
        "norm2": nn.BatchNorm2d(48),
        "relu2": nn.ReLU(),
        "pool1": nn.MaxPool2d(2),
        "conv3": nn.Conv2d(48, 64, 3, padding=1),
        "norm3": nn.BatchNorm2d(64),
        "relu3": nn.ReLU(),
        "pool2": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(),
        "readout": nn.Linear(64, 10),
    }.items():
        model.add_module(name, layer)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    structure = ds.Structure(model, optimizer, example_inputs=(images[:64],), total_steps=steps)
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        batch = torch.randint(len(images), (64,), generator=draw)
        loss = cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        structure.step(loss)
    structure.finish()
    return structure.record()


def transformer(steps: int) -> Record:
    """A byte-level transformer whose whole shape is learned, down to a budget of parameters."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*.py"))
    raw = b"".join(file.read_bytes() for file in files)
    text = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
    draw = torch.Generator().manual_seed(1)

    def windows(count: int) -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(text) - CONTEXT, (count,), generator=draw)
        found = text[starts[:, None] + torch.arange(CONTEXT + 1)].long()
        return found[:, :-1], found[:, 1:]

    torch.manual_seed(0)
    model = Transformer(256, 4, context=CONTEXT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    structure = ds.Structure(
        model,
        optimizer,
        example_inputs=(windows(4)[0],),
        total_steps=steps,
        budget=ds.Budget(parameters=70_000),
    )
    for _ in range(steps):
        x, y = windows(16)
        loss = cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        structure.step(loss)
    structure.finish()
    return structure.record()


if __name__ == "__main__":
    main()
