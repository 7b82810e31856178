"""The elementwise functions of the kernels against exact ones."""

import math

import numpy as np
import pytest

from diffstruct.nn.kernels import blocks
from diffstruct.nn.kernels.compile import compiled

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
