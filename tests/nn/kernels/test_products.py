"""The products of the compiled loops, with vectors of either length, whatever this machine has."""

import os
import subprocess
import sys

import pytest

CHECK = """
import llvmlite.binding

features = llvmlite.binding.get_host_cpu_features()
features["avx512f"] = features.get("avx512f", False) and {wide}
llvmlite.binding.get_host_cpu_features = lambda: features

import numpy as np

from diffstruct.nn.kernels import packing, products
from diffstruct.nn.kernels.layer import packed_weight

assert products.VECTOR_BYTES == (64 if features["avx512f"] else 32)
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
            heard = chance.standard_normal((3, rows, each)).astype(kind)
            out = np.ones((terms, each), kind)
            products.add_outer(out, steps, heard)
            expected = 1 + np.einsum("tbi,tbj->ij", steps, heard)
            assert np.abs(out - expected).max() < 20 * close, (kind, units, terms, rows)
print("equal")
"""


@pytest.mark.parametrize("wide", [False, True])
def test_products_equal_those_of_numpy_with_vectors_of_any_length(wide, tmp_path):
    # In a process and a cache of its own: how long the vectors are is compiled in.
    done = subprocess.run(
        [sys.executable, "-c", CHECK.format(wide=wide)],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "equal\n", done.stderr
