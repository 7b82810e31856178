"""The products of the compiled loops against those of NumPy."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffstruct.nn.kernels.packing import pack, pack_transposed
from diffstruct.nn.kernels.padding import LANES, padded
from diffstruct.nn.kernels.products import add_outer, multiply

TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])

CHECK = """
import llvmlite.binding

features = llvmlite.binding.get_host_cpu_features()
features["avx512f"] = features.get("avx512f", False) and {wide}
llvmlite.binding.get_host_cpu_features = lambda: features

import numpy as np

from diffstruct.nn.kernels import packing, products, tile
from diffstruct.nn.kernels.layer import packed_weight

assert tile.VECTOR_BYTES == (64 if features["avx512f"] else 32)
chance = np.random.default_rng(0)
for kind, close in ((np.float32, 1e-4), (np.float64, 1e-12)):
    for units in (1, 7, 8, 9, 15, 16, 17, 33, 40, 70, 150):
        for terms, rows, gates in ((1, 1, 1), (2, 5, 3), (5, 1, 4), (37, 4, 1), (130, 67, 1)):
            each = (units + 15) // 16 * 16
            left = chance.standard_normal((rows, terms)).astype(kind)
            weight = chance.standard_normal((gates * units, terms)).astype(kind)
            for first in range(gates):
                out = np.ones((rows, gates * each), kind)
                products.multiply(out, left, packed_weight(weight, units, first))
                for gate in range(gates):
                    source = (gate + first) % gates * units
                    expected = 1 + left @ weight[source : source + units].T
                    found = out[:, gate * each : gate * each + units]
                    assert np.abs(found - expected).max() < close, (kind, units, terms, rows, gates, first)
            right = chance.standard_normal((terms, units)).astype(kind)
            packed = np.empty((terms, each), kind)
            packing.pack(packed, right)
            out = np.ones((rows, each), kind)
            products.multiply(out, left, packed)
            assert np.abs(out[:, :units] - 1 - left @ right).max() < close, (kind, units, terms, rows)
            steps = chance.standard_normal((3, rows, terms)).astype(kind)
            right = chance.standard_normal((3, rows, each)).astype(kind)
            out = np.ones((terms, each), kind)
            products.add_outer(out, steps, right)
            expected = 1 + np.einsum("tbi,tbj->ij", steps, right)
            assert np.abs(out - expected).max() < 20 * close, (kind, units, terms, rows)
print("equal")
"""


@pytest.mark.parametrize("wide", [False, True])
def test_products_are_the_same_with_vectors_of_any_length(wide):
    # In a process of its own, since the length of the vectors is compiled in.
    done = subprocess.run([sys.executable, "-c", CHECK.format(wide=wide)], capture_output=True, text=True)
    assert done.stdout == "equal\n", done.stderr


def packed_transpose(matrix, units, first=0):
    rows, terms = matrix.shape
    packed = np.full((terms, rows // units * padded(units)), np.nan, matrix.dtype)
    pack_transposed(packed, matrix, units, first)
    return packed


@settings(max_examples=60)
@given(
    st.sampled_from([1, 2, 3, 4, 5, 8, 63, 64, 70]),
    st.sampled_from([1, 2, 4, 7, 37, 127, 128, 300]),
    st.sampled_from([1, 15, 16, 17, 33, 48, 63, 65, 130]),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
)
def test_products(rows, terms, units, dtype, turned):
    chance = np.random.default_rng(rows * terms + units)
    left, right = (chance.integers(-8, 9, shape).astype(dtype) for shape in ((rows, terms), (terms, units)))
    before = chance.integers(-8, 9, (rows, padded(units))).astype(dtype)
    packed = np.full((terms, padded(units)), np.nan, dtype)
    if turned:
        left = np.asfortranarray(left)
        packed = packed_transpose(np.ascontiguousarray(right.T), units)
    else:
        pack(packed, right)
    out = before.copy()
    multiply(out, left, packed)
    before[:, :units] += left @ right  # whole numbers: exact
    assert np.array_equal(out, before)


@TYPES
def test_gates_are_padded_each_by_itself_in_the_order_asked_for(dtype):
    units, terms, gates = 17, 5, 3
    weight = np.arange(gates * units * terms).reshape(gates * units, terms).astype(dtype)
    packed = packed_transpose(weight, units, first=2)
    out = np.zeros((terms, gates * padded(units)), dtype)
    multiply(out, np.eye(terms, dtype=dtype), packed)
    each = out.reshape(terms, gates, padded(units))
    assert (each[:, :, units:] == 0).all()
    found = each[:, [1, 2, 0], :units].transpose(1, 2, 0).reshape(gates * units, terms)
    assert np.array_equal(found, weight)


@TYPES
@pytest.mark.parametrize("part", [slice(None), slice(1, 4)], ids=["whole batch", "part of it"])
def test_outer_products_are_summed_over_steps_and_batch(dtype, part):
    chance = np.random.default_rng(0)
    left = chance.integers(-8, 9, (4, 6, 19)).astype(dtype)[:, part]
    right = chance.integers(-8, 9, (4, 6, 2 * LANES)).astype(dtype)[:, part]
    out = np.ones((19, 2 * LANES), dtype)
    add_outer(out, left, right)
    assert np.array_equal(out, 1 + np.einsum("tbr,tbc->rc", left, right))
