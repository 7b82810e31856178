"""Weights in the layout that `products.multiply` reads fastest.

Columns go in panels as wide as a tile, each panel's terms behind one another, so that a tile reads memory in
order. Columns beyond the units become zero. This module needs Numba; import it only where
`kernels.available` is true.
"""

from __future__ import annotations

from typing import Any

from diffstruct.nn.kernels.compile import compiled
from diffstruct.nn.kernels.memory import array
from diffstruct.nn.kernels.tile import MOST_VECTORS, VECTOR_BYTES

TOGETHER = 4  # rows that are transposed at once, for neighbours to be written together; divides every panel


@compiled
def _place(packed: Any, column: int) -> tuple[Any, Any]:
    """The address of the first term of a column, and how many columns its panel has."""
    terms, columns = packed.shape
    most = MOST_VECTORS * (VECTOR_BYTES // packed.itemsize)
    start = column // most * most
    return packed.ctypes.data + (start * terms + column - start) * packed.itemsize, min(most, columns - start)


@compiled
def pack(packed: Any, matrix: Any) -> None:
    """Pack `matrix` `[terms, units]` into `packed` `[terms, padded(units)]`, both contiguous."""
    (terms, units), like, size = matrix.shape, packed.dtype.type(0), packed.itemsize
    packed[:] = 0
    start = 0
    while start < units:
        place, wide = _place(packed, start)
        count = min(wide, units - start)
        for k in range(terms):
            target = array(place + k * wide * size, (count,), like)
            source = array(matrix.ctypes.data + (k * units + start) * size, (count,), like)
            for j in range(count):
                target[j] = source[j]
        start += wide


@compiled
def pack_transposed(packed: Any, matrix: Any, units: int, first: int) -> None:
    """Pack the transpose of `matrix` `[gates * units, terms]`, contiguous.

    Each gate's columns are padded by themselves. `packed` is `[terms, gates * padded(units)]`, contiguous;
    gate `first` comes first, then those after it, cyclically.
    """
    (terms, columns), gates, like = packed.shape, matrix.shape[0] // units, packed.dtype.type(0)
    packed[:] = 0
    for g in range(gates):
        for unit in range(0, units, TOGETHER):
            place, wide = _place(packed, g * (columns // gates) + unit)
            panel = array(place, (terms, wide), like)  # from this column on; a row ends where the next begins
            begin = matrix.ctypes.data + ((g + first) % gates * units + unit) * terms * matrix.itemsize
            rows = array(begin, (TOGETHER, terms), like)
            if unit + TOGETHER <= units:
                for k in range(terms):
                    for j in range(TOGETHER):
                        panel[k, j] = rows[j, k]
            else:
                for j in range(units - unit):
                    for k in range(terms):
                        panel[k, j] = rows[j, k]
