"""The matrix product inside the compiled loops: `out += left @ right`, in registers, a tile at a time.

A step of a small recurrent layer is a product too small for a BLAS call to pay, so the kernels bring their
own. A tile of `out`, four rows by up to `MOST_VECTORS` vectors of neighbouring columns, stays in registers
while the sum runs; the compiler's own vectoriser would write it back at each term. Columns come in whole
vectors (`padded`), so there is no remainder. The order of every sum is fixed: the same bits each time.

This module needs Numba; import it only where `kernels.available` says so.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from diffstruct.nn.kernels.compile import compiled

# 512-bit vectors where the machine has them (and then 32 registers), else 256-bit ones (16 registers). A
# machine with shorter ones still runs this: LLVM takes each vector apart.
_WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f", False))
VECTOR_BYTES = 64 if _WIDE else 32
MOST_VECTORS = 4 if _WIDE else 2
HEIGHT = 4  # rows of a tile
UNROLL = 4  # terms at once in a tile of one row, whose few sums would wait for one another

# Blocks of terms and of rows that stay in the first and second cache while they are used again.
TERMS, ROWS = 128, 64


@intrinsic(prefer_literal=True)
def _tile(
    typing_context: Any,
    height: Any,
    vectors: Any,
    unroll: Any,
    like: Any,
    out: Any,
    out_row: Any,
    left: Any,
    left_row: Any,
    left_term: Any,
    left_turn: Any,
    right: Any,
    right_term: Any,
    right_turn: Any,
    turns: Any,
) -> Any:
    """`out[r, c] += sum_k left[r, k] right[k, c]` for `height` rows and `vectors` vectors of columns.

    The sum has `unroll * turns` terms, at least one: those of one turn go to sums of their own. `height`,
    `vectors` and `unroll` are literals; `like` a number of the type of all; the rest int64: addresses, then
    the bytes from one row, or term of a turn, or turn to the next.
    """
    if not all(isinstance(number, types.IntegerLiteral) for number in (height, vectors, unroll)):
        return None
    rows, columns, depth = height.literal_value, vectors.literal_value, unroll.literal_value
    real = ir.FloatType() if like == types.float32 else ir.DoubleType()
    size = 4 if like == types.float32 else 8
    lanes = VECTOR_BYTES // size
    vector, integer = ir.VectorType(real, lanes), ir.IntType(64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, out_row, left, left_row, left_term, left_turn, right, right_term, right_turn, turns = arguments[
            4:
        ]

        def offset(address: Any, count: int, stride: Any) -> Any:
            return builder.add(address, builder.mul(ir.Constant(integer, count), stride))

        def at(address: Any, kind: Any) -> Any:
            return builder.inttoptr(address, kind.as_pointer())

        def spread(address: Any) -> Any:
            number = builder.load(at(address, real), align=size)
            single = builder.insert_element(
                ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0)
            )
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
            return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), zeros)

        step = ir.Constant(integer, VECTOR_BYTES)
        places = [[offset(offset(out, r, out_row), c, step) for c in range(columns)] for r in range(rows)]
        begin = builder.basic_block
        loop, done = builder.append_basic_block("terms"), builder.append_basic_block("stored")
        builder.branch(loop)
        builder.position_at_end(loop)

        # What the loop carries: the turn, where left and right stand, and the sums.
        turn, here, there = (builder.phi(integer) for _ in range(3))
        for carried, first in ((turn, ir.Constant(integer, 0)), (here, left), (there, right)):
            carried.add_incoming(first, begin)
        zero = ir.Constant(vector, [ir.Constant(real, 0.0)] * lanes)
        sums = [[[builder.phi(vector) for _ in range(columns)] for _ in range(rows)] for _ in range(depth)]
        results: list[list[list[Any]]] = []
        for term in range(depth):
            found = offset(there, term, right_term)
            across = [builder.load(at(offset(found, c, step), vector), align=size) for c in range(columns)]
            start = offset(here, term, left_term)
            results.append([])
            for r in range(rows):
                factor = spread(offset(start, r, left_row))
                line = []
                for c in range(columns):
                    sums[term][r][c].add_incoming(zero, begin)
                    product = builder.fmul(factor, across[c], flags=("contract",))
                    line.append(builder.fadd(sums[term][r][c], product, flags=("contract",)))
                results[-1].append(line)
        following = builder.add(turn, ir.Constant(integer, 1))
        end = builder.basic_block
        turn.add_incoming(following, end)
        here.add_incoming(builder.add(here, left_turn), end)
        there.add_incoming(builder.add(there, right_turn), end)
        for term in range(depth):
            for r in range(rows):
                for c in range(columns):
                    sums[term][r][c].add_incoming(results[term][r][c], end)
        builder.cbranch(builder.icmp_signed("<", following, turns), loop, done)

        builder.position_at_end(done)
        for r in range(rows):
            for c in range(columns):
                total = results[0][r][c]
                for term in range(1, depth):
                    total = builder.fadd(total, results[term][r][c])
                place = at(places[r][c], vector)
                builder.store(builder.fadd(builder.load(place, align=size), total), place, align=size)
        return context.get_dummy_value()

    return types.void(height, vectors, unroll, like, *[types.int64] * 10), generate


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
        if vectors == 1:
            _tile(4, 1, 1, like, o, out_row, a, left_row, b, b, right, c, c, terms)
        elif vectors == 2:
            _tile(4, 2, 1, like, o, out_row, a, left_row, b, b, right, c, c, terms)
        elif vectors == 3:
            _tile(4, 3, 1, like, o, out_row, a, left_row, b, b, right, c, c, terms)
        else:
            _tile(4, 4, 1, like, o, out_row, a, left_row, b, b, right, c, c, terms)
    turns = terms // UNROLL
    rest = terms - turns * UNROLL
    for r in range(whole, rows):
        o, a = out + r * out_row, left + r * left_row
        if turns:
            left_turn, right_turn = UNROLL * b, UNROLL * c
            if vectors == 1:
                _tile(1, 1, 4, like, o, 0, a, 0, b, left_turn, right, c, right_turn, turns)
            elif vectors == 2:
                _tile(1, 2, 4, like, o, 0, a, 0, b, left_turn, right, c, right_turn, turns)
            elif vectors == 3:
                _tile(1, 3, 4, like, o, 0, a, 0, b, left_turn, right, c, right_turn, turns)
            else:
                _tile(1, 4, 4, like, o, 0, a, 0, b, left_turn, right, c, right_turn, turns)
        if rest:
            a, d = a + turns * UNROLL * b, right + turns * UNROLL * c
            if vectors == 1:
                _tile(1, 1, 1, like, o, 0, a, 0, b, b, d, c, c, rest)
            elif vectors == 2:
                _tile(1, 2, 1, like, o, 0, a, 0, b, b, d, c, c, rest)
            elif vectors == 3:
                _tile(1, 3, 1, like, o, 0, a, 0, b, b, d, c, c, rest)
            else:
                _tile(1, 4, 1, like, o, 0, a, 0, b, b, d, c, c, rest)


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
    if gates == 3:
        if vectors == 1:
            _tile(1, 1, 3, like, out, 0, left, 0, left_term, left_turn, right, right_term, right_turn, turns)
        elif vectors == 2:
            _tile(1, 2, 3, like, out, 0, left, 0, left_term, left_turn, right, right_term, right_turn, turns)
        elif vectors == 3:
            _tile(1, 3, 3, like, out, 0, left, 0, left_term, left_turn, right, right_term, right_turn, turns)
        else:
            _tile(1, 4, 3, like, out, 0, left, 0, left_term, left_turn, right, right_term, right_turn, turns)
    else:
        if vectors == 1:
            _tile(1, 1, 4, like, out, 0, left, 0, left_term, left_turn, right, right_term, right_turn, turns)
        elif vectors == 2:
            _tile(1, 2, 4, like, out, 0, left, 0, left_term, left_turn, right, right_term, right_turn, turns)
        elif vectors == 3:
            _tile(1, 3, 4, like, out, 0, left, 0, left_term, left_turn, right, right_term, right_turn, turns)
        else:
            _tile(1, 4, 4, like, out, 0, left, 0, left_term, left_turn, right, right_term, right_turn, turns)


@compiled
def multiply_gates(out: Any, left: Any, packed: Any) -> None:
    """`out += sum_g left_g @ packed[g]`, the way back from gates to what they heard.

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
    """`multiply` for each `out[t]`, `[rows, columns]`, and `left[t]`, at once where memory allows."""
    steps, rows, columns = out.shape
    if out.strides[0] == rows * out.strides[1] and left.strides[0] == rows * left.strides[1]:
        like, terms = out.dtype.type(0), left.shape[2]
        a, b, right = left.strides[1], left.strides[2], packed.ctypes.data
        target, source, every = out.ctypes.data, left.ctypes.data, steps * rows
        _multiply(
            like, out.itemsize, target, out.strides[1], source, a, b, right, 0, True, every, columns, terms
        )
    else:
        for t in range(steps):
            multiply(out[t], left[t], packed)


@compiled
def add_outer(out: Any, left: Any, right: Any) -> None:
    """`out += sum_t left[t].T @ right[t]`: how a weight's gradient gathers over steps and sequences.

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
