"""Weights in the layout that `products.multiply` reads fastest.

Columns go in panels as wide as a tile, each panel's terms behind one another, so that a tile reads memory in
order. Columns beyond the units become zero. This module needs Numba; import it only where
`kernels.available` says so.
"""

from __future__ import annotations

from typing import Any

from diffstruct.kernels.compile import compiled
from diffstruct.kernels.memory import array
from diffstruct.kernels.padding import LANES
from diffstruct.kernels.products import MOST_VECTORS, VECTOR_BYTES


@compiled
def _panel(packed: Any, start: int) -> Any:
    """The panel that begins at column `start`, `[terms, as wide as it is]`."""
    terms, columns = packed.shape
    wide = min(MOST_VECTORS * (VECTOR_BYTES // packed.itemsize), columns - start)
    place = packed.ctypes.data + start * terms * packed.itemsize
    return array(place, (terms, wide), packed.dtype.type(0))


@compiled
def pack(packed: Any, matrix: Any) -> None:
    """Pack `matrix` `[terms, units]` into `packed` `[terms, padded(units)]`, both contiguous."""
    terms, columns = packed.shape
    zero, units = packed.dtype.type(0), matrix.shape[1]
    wide = MOST_VECTORS * (VECTOR_BYTES // packed.itemsize)
    for c in range(0, columns, wide):
        panel = _panel(packed, c)
        filled = max(0, min(panel.shape[1], units - c))
        for k in range(terms):
            target, source = panel[k], matrix[k, c:]
            for j in range(filled):
                target[j] = source[j]
            for j in range(filled, panel.shape[1]):
                target[j] = zero


@compiled
def pack_transposed(packed: Any, matrix: Any, units: int, first: int) -> None:
    """Pack the transpose of `matrix` `[gates * units, terms]`, contiguous.

    Each gate's columns are padded by themselves. `packed` is `[terms, gates * padded(units)]`, contiguous;
    gate `first` comes first, then those after it, cyclically.
    """
    terms, columns = packed.shape
    zero, gates = packed.dtype.type(0), matrix.shape[0] // units
    each = columns // gates
    wide = MOST_VECTORS * (VECTOR_BYTES // packed.itemsize)
    strip = min(LANES, wide)
    for c in range(0, columns, strip):  # all of one panel, and of one gate
        panel, unit = _panel(packed, c // wide * wide)[:, c % wide :], c % each
        rows = matrix[(c // each + first) % gates * units + unit :]
        if units - unit >= strip:
            for k in range(terms):
                for j in range(strip):
                    panel[k, j] = rows[j, k]
        else:
            filled = max(0, units - unit)  # beyond: what pads the gate
            for k in range(terms):
                for j in range(filled):
                    panel[k, j] = rows[j, k]
                for j in range(filled, strip):
                    panel[k, j] = zero
