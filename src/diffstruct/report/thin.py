"""Curves and samples thinned to what a screen can show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def thin(values: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Which points of a curve to keep: of each stretch its lowest and its highest, so that no peak is lost.

    Args:
        values: `[points]`; those that are not finite are nobody's peak.
        most: points to keep at most; at least 4.

    Returns:
        Indices, ascending, with the first and the last point; all of them if there are no more than `most`.
    """
    count = len(values)
    if count <= most:
        return np.arange(count)
    stretches = most // 2 - 1
    edges = np.linspace(0, count, stretches + 1).astype(np.int64)[:-1]
    kept = [0, count - 1]
    for fill, reach in ((np.inf, np.minimum), (-np.inf, np.maximum)):
        filled = np.where(np.isfinite(values), values, fill)
        peaks = np.repeat(reach.reduceat(filled, edges), np.diff([*edges, count]))
        # The first point of each stretch that reaches its peak.
        at = np.flatnonzero(filled == peaks)
        stretch = np.searchsorted(edges, at, side="right")
        kept.extend(at[np.unique(stretch, return_index=True)[1]])
    return np.unique(np.array(kept, np.int64))


def evenly(sizes: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Which samples to keep so that they hold at most so many numbers: evenly spaced, first and last always.

    Args:
        sizes: `[samples]`, the numbers in each of them.
        most: numbers to keep, in all; of a few large samples two are kept nevertheless.
    """
    count = len(sizes)
    keep = count
    while keep > 2:
        chosen = np.unique(np.linspace(0, count - 1, keep).round().astype(np.int64))
        held = int(sizes[chosen].sum())
        if held <= most:
            return chosen
        keep = max(2, min(keep - 1, keep * most // held))
    return np.unique(np.linspace(0, count - 1, keep).round().astype(np.int64)) if count else np.arange(0)
