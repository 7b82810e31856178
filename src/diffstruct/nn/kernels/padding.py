"""How many columns a row of units takes inside the kernels."""

from __future__ import annotations

LANES = 16  # whole vectors of either type of number on every machine


def padded(units: int) -> int:
    """`units`, rounded up to whole vectors."""
    return (units + LANES - 1) // LANES * LANES
