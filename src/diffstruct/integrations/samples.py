"""The samples that the estimators for scikit-learn are given: weights, repetitions, and their scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffstruct.integrations.perceptron import Standardise

try:
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils import check_array, check_consistent_length
except ImportError as error:
    raise ImportError("scikit-learn is not installed: pip install 'diffstruct[sklearn]'") from error

FLOATS = [np.float64, np.float32]
"""What is computed with; other numbers become the first."""


def check_weights(sample_weight: Any, x: NDArray[Any]) -> NDArray[np.float64]:
    """The weights of samples, `[samples]`; all 1 for None.

    Raises:
        ValueError: they are no such numbers, or all are zero.
    """
    if sample_weight is None:
        return np.ones(len(x))
    weight: NDArray[np.float64] = check_array(
        sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if weight.ndim != 1:
        raise ValueError("Sample weights must be 1D array or scalar")
    check_consistent_length(x, weight)
    if (weight < 0).any() or not weight.any():
        raise ValueError("Sample weights must be at least 0, and contain at least one non-zero number.")
    return weight


def distinct(
    x: NDArray[Any], y: NDArray[Any], weight: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """One of each kind of row in an order that no order of the rows changes, and what all of a kind weigh.

    So a row of weight 2 is twice the row, to the bit.

    Args:
        x: `[rows, columns]`.
        y: `[rows]` or `[rows, outputs]`.
        weight: `[rows]`.

    Returns:
        Indices and weights, `[distinct rows]`.
    """
    rows = np.column_stack([x.astype(np.float64), y.astype(np.float64)])
    _, first, kind = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first, np.bincount(kind.ravel(), weight).astype(np.float64)


def standardise(values: Any, weight: Any, dtype: torch.dtype, back: bool = False) -> Standardise:
    """The module that standardises columns, or takes that back, by their weighted means and deviations.

    Features of two values are brought to a distance of 1 between these: a word that is rare has a small
    deviation, and divided by it the few rows that have the word would outweigh all else.
    """
    scaler = StandardScaler().fit(values, sample_weight=weight)
    scale = scaler.scale_
    if not back:
        low, high = values.min(0), values.max(0)
        two = (low < high) & ((values == low) | (values == high)).all(0)
        scale = np.where(two, high - low, scale)
    return Standardise(torch.from_numpy(scaler.mean_), torch.from_numpy(scale), dtype, back)
