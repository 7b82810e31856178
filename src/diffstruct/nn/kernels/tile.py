"""A tile of a matrix product: `out += left @ right` for a few rows and vectors of columns, in registers.

The sums of a tile stay in registers until they are complete; the compiler's own vectoriser would write them
back at each term. The order of every sum is fixed: the same bits each time.

This module needs Numba; import it only where `kernels.available` is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# 512-bit vectors where the machine has them (and then 32 registers), else 256-bit ones (16 registers). On a
# machine with shorter ones LLVM takes each vector apart.
_WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f", False))
VECTOR_BYTES = 64 if _WIDE else 32
MOST_VECTORS = 4 if _WIDE else 2

_INTEGER = ir.IntType(64)


@intrinsic(prefer_literal=True)
def add_tile(
    typing_context: Any,
    height: Any,
    unroll: Any,
    vectors: Any,
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

    The sum has `unroll * turns` terms, at least one; each of the `unroll` terms of a turn is added to its own
    sum. `height` and `unroll` are literals; `vectors`, 1 to `MOST_VECTORS`, selects the code for that
    number; `like` is a number of the type of all entries. The rest are int64: addresses, and the bytes from
    one row, or term of a turn, or turn to the next.
    """
    if not all(isinstance(number, types.IntegerLiteral) for number in (height, unroll)):
        return None
    real = ir.FloatType() if like == types.float32 else ir.DoubleType()
    size = 4 if like == types.float32 else 8
    vector = ir.VectorType(real, VECTOR_BYTES // size)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        done = builder.append_basic_block("done")
        choice = builder.switch(arguments[2], done)
        for columns in range(1, MOST_VECTORS + 1):
            builder.position_at_end(builder.append_basic_block(f"vectors.{columns}"))
            choice.add_case(columns, builder.basic_block)
            _emit(builder, vector, size, height.literal_value, columns, unroll.literal_value, arguments[4:])
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(height, unroll, types.int64, like, *[types.int64] * 10), generate


def _emit(
    builder: Any, vector: Any, size: int, rows: int, columns: int, unroll: int, arguments: Sequence[Any]
) -> None:
    """The code of a tile `columns` vectors wide, of numbers of `size` bytes; see `add_tile` for the rest."""
    out, out_row, left, left_row, left_term, left_turn, right, right_term, right_turn, turns = arguments
    real, lanes = vector.element, vector.count

    def offset(address: Any, count: int, stride: Any) -> Any:
        return builder.add(address, builder.mul(ir.Constant(_INTEGER, count), stride))

    def at(address: Any, kind: Any) -> Any:
        return builder.inttoptr(address, kind.as_pointer())

    def spread(address: Any) -> Any:
        number = builder.load(at(address, real), align=size)
        undefined = ir.Constant(vector, ir.Undefined)
        single = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        return builder.shuffle_vector(single, undefined, zeros)

    step = ir.Constant(_INTEGER, VECTOR_BYTES)
    places = [[offset(offset(out, r, out_row), c, step) for c in range(columns)] for r in range(rows)]
    begin = builder.basic_block
    loop, stored = builder.append_basic_block("terms"), builder.append_basic_block("stored")
    builder.branch(loop)
    builder.position_at_end(loop)

    # The loop carries the turn, the addresses in left and right, and the sums.
    turn, here, there = (builder.phi(_INTEGER) for _ in range(3))
    for carried, first in ((turn, ir.Constant(_INTEGER, 0)), (here, left), (there, right)):
        carried.add_incoming(first, begin)
    zero = ir.Constant(vector, [ir.Constant(real, 0.0)] * lanes)
    sums = [[[builder.phi(vector) for _ in range(columns)] for _ in range(rows)] for _ in range(unroll)]
    results: list[list[list[Any]]] = []
    for term in range(unroll):
        found = offset(there, term, right_term)
        across = [builder.load(at(offset(found, c, step), vector), align=size) for c in range(columns)]
        start = offset(here, term, left_term)
        results.append([])
        for r in range(rows):
            factor = spread(offset(start, r, left_row))
            row = []
            for c in range(columns):
                sums[term][r][c].add_incoming(zero, begin)
                product = builder.fmul(factor, across[c], flags=("contract",))
                row.append(builder.fadd(sums[term][r][c], product, flags=("contract",)))
            results[-1].append(row)
    following = builder.add(turn, ir.Constant(_INTEGER, 1))
    turn.add_incoming(following, loop)
    here.add_incoming(builder.add(here, left_turn), loop)
    there.add_incoming(builder.add(there, right_turn), loop)
    for term in range(unroll):
        for r in range(rows):
            for c in range(columns):
                sums[term][r][c].add_incoming(results[term][r][c], loop)
    builder.cbranch(builder.icmp_signed("<", following, turns), loop, stored)

    builder.position_at_end(stored)
    for r in range(rows):
        for c in range(columns):
            total = results[0][r][c]
            for term in range(1, unroll):
                total = builder.fadd(total, results[term][r][c])
            place = at(places[r][c], vector)
            builder.store(builder.fadd(builder.load(place, align=size), total), place, align=size)
