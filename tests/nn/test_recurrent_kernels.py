"""Which calls of a recurrent layer run a compiled kernel, and that the others give the same numbers."""

import subprocess
import sys

import pytest
import torch
from helpers.recurrent import BATCH, COMPILED_KINDS, INPUTS, STEPS, assert_same, normal, pair, run

import diffstruct as ds
from diffstruct.nn.kernels.sequence import Kernel
from diffstruct.nn.kernels.sizes import is_faster


@pytest.fixture
def kernel_calls(monkeypatch):
    """A list that grows by one at each call of a kernel."""
    calls, call = [], Kernel.__call__

    def counted(self, *tensors):
        calls.append(self.name)
        return call(self, *tensors)

    monkeypatch.setattr(Kernel, "__call__", counted)
    return calls


@COMPILED_KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_layer_is_one_call_of_a_kernel(kind, dtype, kernel_calls):
    ours, _ = pair(kind, num_layers=3, dtype=dtype, dropout=0.5)
    for x in (normal(STEPS, BATCH, INPUTS, dtype=dtype), normal(STEPS, INPUTS, dtype=dtype)):
        ours.eval()(x)
        assert kernel_calls == 3 * [ours.kernel.name]
        kernel_calls.clear()
    ours.train()(x)  # dropout between the layers
    assert not kernel_calls


@COMPILED_KINDS
def test_without_numba_torch_does_the_same(kind, kernel_calls, monkeypatch):
    ours, theirs = pair(kind)
    with_kernel = run(ours, normal(STEPS, BATCH, INPUTS))
    assert len(kernel_calls) == 1
    monkeypatch.setattr("diffstruct.nn.kernels.available", False)
    without = run(ours, normal(STEPS, BATCH, INPUTS))
    assert len(kernel_calls) == 1
    assert_same(with_kernel, without)
    assert_same(without, run(theirs, normal(STEPS, BATCH, INPUTS)), rtol=0, atol=0)


WITHOUT_NUMBA = """
import sys

class Hidden:
    '''A finder that does not find Numba.'''

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in ("numba", "llvmlite") else self.finder.find_spec(name, *rest)

sys.meta_path[:] = map(Hidden, sys.meta_path)
import torch
import diffstruct as ds
from diffstruct.nn import kernels

assert kernels.available is False
for name in ("RNN", "GRU", "LSTM"):
    ours = getattr(ds.nn, name)(2, 3)
    x, found = torch.randn(4, 5, 2), []
    for layer in (ours, ours.to_torch()):
        outputs = layer(x)[0]
        found.append([outputs, *torch.autograd.grad(outputs.square().sum(), list(layer.parameters()))])
    assert all(map(torch.equal, *found)), name
assert "numba" not in sys.modules
print("equal")
"""


def test_the_package_works_where_numba_is_not_installed():
    done = subprocess.run([sys.executable, "-c", WITHOUT_NUMBA], capture_output=True, text=True)
    assert done.stdout == "equal\n", done.stderr


def test_numba_is_imported_when_a_kernel_first_runs():
    code = (
        "import sys, torch, diffstruct as ds; layer = ds.nn.GRU(2, 3); print('numba' in sys.modules);"
        "layer(torch.ones(4, 1, 2)); print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_large_products_are_left_to_torch(kernel_calls):
    for batch, calls in ((1, 1), (64, 0)):
        kernel_calls.clear()
        layer = ds.nn.LSTM(INPUTS, 100)
        with torch.no_grad():
            layer(normal(1, batch, INPUTS, dtype=torch.float32))
        assert len(kernel_calls) == calls
    assert is_faster(4, 37, 32, torch.float32)
    assert is_faster(4, 512, 64, torch.float64)
    assert is_faster(1, 512, 64, torch.float32)
