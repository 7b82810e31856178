"""Arguments for the fused recurrent kernels, and a comparison with plain differentiable operations."""

import pytest
import torch

from diffstruct.nn.kernels.elman import elman
from diffstruct.nn.kernels.gru import gru
from diffstruct.nn.kernels.lstm import lstm

CLOSE = {"rtol": 0, "atol": 1e-12}
KERNELS = {"RNN": (elman, 1), "GRU": (gru, 3), "LSTM": (lstm, 4)}
EVERY_KERNEL = pytest.mark.parametrize("kind", KERNELS)


def arguments(
    kind,
    steps=4,
    batch=2,
    inputs=3,
    units=3,
    bias=True,
    states=True,
    seed=0,
    dtype=torch.float64,
    requires_grad=True,
):
    """What the kernel takes, all leaves; None for what is to be absent.

    The recurrent weights are scaled so that a step does not magnify the rounding of the one before it.
    """
    kernel, gates = KERNELS[kind]
    chance = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return (scale * torch.randn(shape, generator=chance, dtype=dtype)).requires_grad_(requires_grad)

    rows = gates * units
    return [
        normal(steps, batch, inputs),
        normal(rows, inputs),
        normal(rows, units, scale=units**-0.5),
        *([normal(rows), normal(rows)] if bias else [None, None]),
        *(normal(1, batch, units) if states else None for _ in range(kernel.states)),
    ]


def present(tensors):
    return [tensor for tensor in tensors if tensor is not None]


def cotangents(results, seed=9):
    chance = torch.Generator().manual_seed(seed)
    return [torch.randn(result.shape, generator=chance, dtype=result.dtype) for result in results]


def compare(kind, tensors, used=slice(None), grads=None, **close):
    """Assert equal results and gradients of the kernel and its reference; return the results."""
    kernel, _ = KERNELS[kind]
    wanted = [tensor for tensor in present(tensors) if tensor.requires_grad]
    found = []
    for function in (kernel, kernel.reference):
        results = function(*tensors)
        chosen = results[used]
        incoming = cotangents(chosen) if grads is None else grads
        gradients = torch.autograd.grad(chosen, wanted, incoming, allow_unused=True, materialize_grads=True)
        found.append((*results, *gradients))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **(close or CLOSE))
    return found[0][: len(results)]


def transposed(tensor):
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
