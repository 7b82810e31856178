"""The cells: combinations of network, optimizer, loss, data and length of run, drawn once and for all."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

DRAWN = 420
"""Cells that are drawn at random."""

DEPTHS = (1, 2, 4, 8)
WIDTHS = (8, 16, 32, 64, 128, 256, 512)
ACTIVATIONS = ("relu", "tanh", "gelu")
KINDS = ("plain", "batch", "residual")
"""Residual blocks begin with a LayerNorm; a width that a LayerNorm averages over is not learned."""
RATES = {
    "SGD": (0.03, 0.1, 0.3),
    "momentum": (0.01, 0.03, 0.1),
    "Adam": (3e-4, 1e-3, 3e-3),
    "AdamW": (3e-4, 1e-3, 3e-3),
    "RMSprop": (3e-4, 1e-3, 3e-3),
    "Adagrad": (0.01, 0.03, 0.1),
    "Muon": (0.005, 0.02, 0.05),
}
STEPS = (300, 1000, 3000, 10_000)
DATA = ("digits", "teacher", "labels", "regression", "spirals", "houses")
FACTORS = (0.01, 1.0, 1.0, 1.0, 100.0)
TARGETS = (0.001, 0.1, 1.0, 1.0, 1.0, 10.0, 1000.0)


@dataclass(frozen=True)
class Cell:
    """One combination.

    Args:
        study: `"drawn"`, or a family in which one thing is turned.
        data: what is learned.
        depth: hidden layers.
        width: their units, as the user would write them.
        activation: of the hidden layers.
        kind: what is between them.
        optimizer: by name.
        rate: its learning rate, for a loss that is a mean.
        steps: of the run.
        factor: that the loss is multiplied by.
        reduction: of the loss.
        targets: what the targets of a regression are multiplied by.
    """

    study: str = "drawn"
    data: str = "teacher"
    depth: int = 2
    width: int = 64
    activation: str = "relu"
    kind: str = "plain"
    optimizer: str = "Adam"
    rate: float = 1e-3
    steps: int = 3000
    factor: float = 1.0
    reduction: str = "mean"
    targets: float = 1.0

    def __str__(self) -> str:
        """All that is not as in the first of all cells."""
        differs = [
            f"{field.name} {getattr(self, field.name):g}"
            if isinstance(field.default, float)
            else f"{getattr(self, field.name)}"
            if isinstance(field.default, str)
            else f"{field.name} {getattr(self, field.name)}"
            for field in fields(self)
            if field.name != "study" and getattr(self, field.name) != field.default
        ]
        return ", ".join(differs) or "as usual"


def cells() -> Iterator[Cell]:
    """All cells; those that are drawn are the same each time."""
    yield from dict.fromkeys(_draw(random.Random(f"cell {number}")) for number in range(DRAWN))
    for factor in (1e-3, 1e-2, 1.0, 1e2, 1e3):
        yield Cell("loss times a factor", factor=factor)
        yield Cell("targets times a factor", data="regression", targets=factor, optimizer="SGD", rate=0.1)
    for optimizer, rates in RATES.items():
        yield Cell("optimizers", optimizer=optimizer, rate=rates[1])


def _draw(chance: random.Random) -> Cell:
    data = chance.choice(DATA)
    optimizer = chance.choice([*RATES])
    regression = data in ("regression", "houses")
    cell = Cell(
        data=data,
        depth=chance.choice(DEPTHS),
        width=chance.choice(WIDTHS),
        activation=chance.choice(ACTIVATIONS),
        kind=chance.choice(KINDS),
        optimizer=optimizer,
        rate=chance.choice(RATES[optimizer]),
        steps=chance.choices(STEPS, (12, 7, 1, 0.4))[0],
        factor=chance.choice(FACTORS),
        reduction=chance.choice(("mean", "mean", "sum")),
        targets=chance.choice(TARGETS) if regression else 1.0,
    )
    # What takes minutes without showing more.
    if cell.depth * cell.width > 1024:
        cell = replace(cell, width=1024 // cell.depth)
    if cell.depth * cell.width * cell.steps > 300_000:
        cell = replace(cell, steps=1000 if cell.depth * cell.width <= 500 else 300)
    return cell
