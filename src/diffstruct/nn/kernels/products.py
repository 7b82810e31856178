"""The matrix product inside the compiled loops: `out += left @ right`, a tile at a time.

A step of a small recurrent layer is a product too small for a BLAS call to be worth it, so the kernels bring
their own. `out` is computed in tiles of four rows by up to `MOST_VECTORS` vectors of neighbouring columns.
Columns come in whole vectors (`padded`), so there is no remainder.

This module needs Numba; import it only where `kernels.available` is true.
"""

from __future__ import annotations

from typing import Any

from diffstruct.nn.kernels.compile import compiled
from diffstruct.nn.kernels.tile import MOST_VECTORS, VECTOR_BYTES, add_tile

HEIGHT = 4  # rows of a tile
UNROLL = 4  # terms at once in a tile of one row, whose few sums would wait for one another

# Blocks of terms and of rows that stay in the first and second cache while they are used again.
TERMS, ROWS = 128, 64


@compiled
def _rows(
    vectors: Any,
    like: Any,
    out: Any,
    out_row: Any,
    left: Any,
    left_row: Any,
    left_term: Any,
    right: Any,
    right_term: Any,
    rows: Any,
    terms: Any,
) -> None:
    """One panel, `vectors` vectors wide, of all rows: four rows at a time, then one by one."""
    whole = rows - rows % HEIGHT
    b, c = left_term, right_term
    for r in range(0, whole, HEIGHT):
        o, a = out + r * out_row, left + r * left_row
        add_tile(HEIGHT, 1, vectors, like, o, out_row, a, left_row, b, b, right, c, c, terms)
    turns = terms // UNROLL
    rest = terms - turns * UNROLL
    for r in range(whole, rows):
        o, a = out + r * out_row, left + r * left_row
        if turns:
            add_tile(1, UNROLL, vectors, like, o, 0, a, 0, b, UNROLL * b, right, c, UNROLL * c, turns)
        if rest:
            a, d = a + turns * UNROLL * b, right + turns * UNROLL * c
            add_tile(1, 1, vectors, like, o, 0, a, 0, b, b, d, c, c, rest)


@compiled
def _multiply(
    like: Any,
    size: Any,
    out: Any,
    out_row: Any,
    left: Any,
    left_row: Any,
    left_term: Any,
    right: Any,
    right_term: Any,
    packed: Any,
    rows: Any,
    columns: Any,
    terms: Any,
) -> None:
    """`multiply`, on addresses and the bytes of a number and from one row or term to the next."""
    lanes = VECTOR_BYTES // size
    panel = MOST_VECTORS * lanes
    for k in range(0, terms, TERMS):
        deep = min(TERMS, terms - k)
        for r in range(0, rows, ROWS):
            high = min(ROWS, rows - r)
            for c in range(0, columns, panel):
                wide = min(panel, columns - c)
                step = wide * size if packed else right_term
                begin = right + (c * terms * size if packed else c * size)
                _rows(
                    wide // lanes,
                    like,
                    out + r * out_row + c * size,
                    out_row,
                    left + r * left_row + k * left_term,
                    left_row,
                    left_term,
                    begin + k * step,
                    step,
                    high,
                    deep,
                )


@compiled
def multiply(out: Any, left: Any, packed: Any) -> None:
    """`out += left @ right`, all of one type of number.

    Args:
        out: `[rows, columns]`, neighbouring columns adjacent, `columns` a multiple of `LANES`.
        left: `[rows, terms]`, in any layout.
        packed: `[terms, columns]`, what `packing` made of `right`.
    """
    (rows, columns), terms = out.shape, left.shape[1]
    like = out.dtype.type(0)
    (a, b), right = left.strides, packed.ctypes.data
    _multiply(
        like,
        out.itemsize,
        out.ctypes.data,
        out.strides[0],
        left.ctypes.data,
        a,
        b,
        right,
        0,
        True,
        rows,
        columns,
        terms,
    )


@compiled
def _gates(
    vectors: Any,
    gates: Any,
    like: Any,
    out: Any,
    left: Any,
    left_term: Any,
    left_turn: Any,
    right: Any,
    right_term: Any,
    right_turn: Any,
    turns: Any,
) -> None:
    """A tile of one row whose terms come from three or four gates, a sum for each, so that none waits."""
    a, b, c, d = left_term, left_turn, right_term, right_turn
    if gates == 3:
        add_tile(1, 3, vectors, like, out, 0, left, 0, a, b, right, c, d, turns)
    else:
        add_tile(1, 4, vectors, like, out, 0, left, 0, a, b, right, c, d, turns)


@compiled
def multiply_gates(out: Any, left: Any, packed: Any) -> None:
    """`out += sum_g left_g @ packed[g]`: in the backward pass, from gates to their inputs.

    Args:
        out: `[rows, columns]`, as in `multiply`.
        left: `[rows, gates * padded(units)]`, of which the first units of each gate count.
        packed: `[gates, units, columns]`, each gate packed by itself.
    """
    (rows, columns), (gates, units, _) = out.shape, packed.shape
    like, (a, b) = out.dtype.type(0), left.strides
    target, source, right = out.ctypes.data, left.ctypes.data, packed.ctypes.data
    width, size = out.strides[0], out.itemsize
    each = left.shape[1] // gates
    if rows < HEIGHT and gates > 2:
        panel = MOST_VECTORS * (VECTOR_BYTES // size)
        for r in range(rows):
            for c in range(0, columns, panel):
                wide = min(panel, columns - c)
                _gates(
                    wide * size // VECTOR_BYTES,
                    gates,
                    like,
                    target + r * width + c * size,
                    source + r * a,
                    each * b,
                    b,
                    right + c * units * size,
                    packed.strides[0],
                    wide * size,
                    units,
                )
    else:
        for g in range(gates):
            begin, weight = source + g * each * b, right + g * packed.strides[0]
            _multiply(like, size, target, width, begin, a, b, weight, 0, True, rows, columns, units)


@compiled
def multiply_each(out: Any, left: Any, packed: Any) -> None:
    """`multiply` for each `out[t]`, `[rows, columns]`, and `left[t]`; as one product if memory allows."""
    steps, rows, columns = out.shape
    if out.strides[0] == rows * out.strides[1] and left.strides[0] == rows * left.strides[1]:
        like, terms = out.dtype.type(0), left.shape[2]
        a, b, right = left.strides[1], left.strides[2], packed.ctypes.data
        target, source, all_rows = out.ctypes.data, left.ctypes.data, steps * rows
        _multiply(
            like, out.itemsize, target, out.strides[1], source, a, b, right, 0, True, all_rows, columns, terms
        )
    else:
        for t in range(steps):
            multiply(out[t], left[t], packed)


@compiled
def add_outer(out: Any, left: Any, right: Any) -> None:
    """`out += sum_t left[t].T @ right[t]`: the gradient of a weight, summed over steps and sequences.

    Args:
        out: `[rows, columns]`, neighbouring columns adjacent, `columns` a multiple of `LANES`.
        left: `[steps, batch, rows]`, in any layout.
        right: `[steps, batch, columns]`, neighbouring columns adjacent.
    """
    (rows, columns), (steps, batch, _) = out.shape, left.shape
    like = out.dtype.type(0)
    target, first, second = out.ctypes.data, left.ctypes.data, right.ctypes.data
    a, b, c = left.strides[2], left.strides[1], right.strides[1]
    leap, jump = left.strides[0], right.strides[0]
    if leap == batch * b and jump == batch * c:
        steps, batch = 1, steps * batch
    for t in range(steps):
        source, right_one = first + t * leap, second + t * jump
        _multiply(
            like,
            out.itemsize,
            target,
            out.strides[0],
            source,
            a,
            b,
            right_one,
            c,
            False,
            rows,
            columns,
            batch,
        )
