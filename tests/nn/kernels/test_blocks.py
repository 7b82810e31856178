"""What the kernels are made of: elementwise functions against exact ones, products against NumPy's."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffstruct.nn.kernels import blocks
from diffstruct.nn.kernels.compile import compiled
from diffstruct.nn.kernels.packing import pack, pack_transposed
from diffstruct.nn.kernels.padding import LANES, padded
from diffstruct.nn.kernels.products import add_outer, multiply

TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
tanh, exp_negative, sigmoid = blocks.tanh, blocks.exp_negative, blocks.sigmoid


@compiled
def every_tanh(x):
    for i in range(len(x)):
        x[i] = tanh(x[i])


@compiled
def every_exp(x):
    for i in range(len(x)):
        x[i] = exp_negative(x[i])


@compiled
def every_sigmoid(x):
    for i in range(len(x)):
        x[i] = sigmoid(x[i])


FUNCTIONS = {
    "tanh": (every_tanh, np.tanh, 2),
    "exp_negative": (every_exp, np.exp, 1),
    "sigmoid": (every_sigmoid, lambda x: 1 / (1 + np.exp(-x)), 2),
}
EVERY_FUNCTION = pytest.mark.parametrize("name", FUNCTIONS)


def arguments(name, dtype):
    """From the tiny to the huge, and dense where the functions bend; results are normal numbers."""
    sizes = np.concatenate([np.logspace(-30, math.log10(70), 20_000), np.linspace(0, 20, 20_001)])
    x = np.concatenate([-sizes, [] if name == "exp_negative" else sizes]).astype(dtype)
    return x


@EVERY_FUNCTION
@TYPES
def test_accurate_to_the_last_places(name, dtype):
    """The exact values in twice the precision; one more half unit for the rounding of both."""
    function, exact, places = FUNCTIONS[name]
    x = arguments(name, dtype)
    wide = x.astype(np.longdouble)
    with np.errstate(over="ignore"):
        right = exact(wide)
    function(x)
    off = np.abs(x.astype(np.longdouble) - right) / np.spacing(np.abs(right).astype(dtype))
    assert off.max() <= places + 0.5


@EVERY_FUNCTION
@TYPES
def test_at_the_ends(name, dtype):
    function, _, _ = FUNCTIONS[name]
    x = np.array([-np.inf, -1e30, 0, 1e30, np.inf, np.nan] * 9, dtype)  # in vectors and beside them
    if name == "exp_negative":
        x = np.minimum(x, 0)
    function(x)
    expected = {"tanh": [-1, -1, 0, 1, 1], "exp_negative": [0, 0, 1, 1, 1], "sigmoid": [0, 0, 0.5, 1, 1]}
    found = x.reshape(9, 6)
    assert np.isnan(found[:, 5]).all()
    np.testing.assert_allclose(found[:, :5], np.tile(expected[name], (9, 1)), rtol=0, atol=1e-30)


@EVERY_FUNCTION
def test_plain_python_means_the_same(name):
    function, _, _ = FUNCTIONS[name]
    plain = getattr(blocks, name)
    for number in (-3.0, -0.25, 0.0):
        x = np.array([number])
        function(x)
        assert x[0] == pytest.approx(plain(number), rel=1e-15)


def packed_transpose(matrix, units, first=0):
    rows, terms = matrix.shape
    packed = np.full((terms, rows // units * padded(units)), np.nan, matrix.dtype)
    pack_transposed(packed, matrix, units, first)
    return packed


@settings(deadline=None, max_examples=60)
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
