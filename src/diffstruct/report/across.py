"""Medians and quartiles over several runs, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Curve = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Steps, ascending, and the value from each of them on."""


@dataclass(frozen=True)
class Quartiles:
    """The middle half of several curves, at some steps; each array is `[steps]`.

    Args:
        lower: a quarter of the runs is below.
        median: half of them.
        upper: three quarters.
    """

    lower: NDArray[np.float64]
    median: NDArray[np.float64]
    upper: NDArray[np.float64]


def value_at(curve: Curve, steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """The last value of a curve up to each of `steps`; nan before its first."""
    at, values = curve
    before = np.searchsorted(at, steps, side="right") - 1
    return np.where(before < 0, np.nan, np.asarray(values, np.float64)[np.maximum(before, 0)])


def quartiles(curves: Sequence[Curve], ends: Sequence[int], steps: NDArray[np.int64]) -> Quartiles:
    """Median and quartiles at each of `steps`, over those runs that have come as far and have a value there.

    Args:
        curves: one a run, each with a value at least.
        ends: the last step of each run.
        steps: ascending.
    """
    values = np.stack(
        [
            np.where(steps <= end, value_at(curve, steps), np.nan)
            for curve, end in zip(curves, ends, strict=True)
        ]
    )
    rows = np.full((3, len(steps)), np.nan)
    known = np.isfinite(values).any(0)
    rows[:, known] = np.nanquantile(
        np.where(np.isfinite(values), values, np.nan)[:, known], (0.25, 0.5, 0.75), axis=0
    )
    return Quartiles(*rows)
