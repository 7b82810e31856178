"""Recurrent layers of `ds.nn` beside those of `torch.nn`, and how to compare them."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

import diffstruct as ds

STEPS, BATCH, INPUTS, UNITS = 5, 3, 3, 4
CLOSE = {"rtol": 0, "atol": 1e-12}
KINDS = {
    "tanh": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
    "GRU": ("GRU", {}),
    "LSTM": ("LSTM", {}),
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
COMPILED_KINDS = pytest.mark.parametrize("kind", ["tanh", "GRU", "LSTM"])


def pair(kind, *args, dtype=torch.float64, **options):
    """The layer of `ds.nn` and the one of `torch.nn`, built apart, with the same weights."""
    name, more = KINDS[kind]
    torch.manual_seed(0)
    args = args or (INPUTS, UNITS)
    ours = getattr(ds.nn, name)(*args, dtype=dtype, **more, **options)
    theirs = getattr(nn, name)(*args, dtype=dtype, **more, **options)
    assert not theirs.load_state_dict(ours.state_dict()).missing_keys
    return ours, theirs


def normal(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def flat(outputs):
    """The tensors in what a recurrent layer returns."""
    if isinstance(outputs, PackedSequence):
        return [outputs.data]
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for part in outputs for tensor in flat(part)]


def weigh(tensors):
    """One number that depends on every entry in another way."""
    return sum((tensor * normal(*tensor.shape, seed=7, dtype=tensor.dtype)).sum() for tensor in tensors)


def run(module, x, state=None, pack=None):
    """Outputs, then the gradients of input, state and parameters, of leaf copies of `x` and `state`."""
    x = x.detach().clone().requires_grad_()
    states = [] if state is None else [tensor.detach().clone().requires_grad_() for tensor in state]
    arguments = [x if pack is None else pack(x)]
    if states:
        arguments.append(tuple(states) if len(states) == 2 else states[0])
    results = module(*arguments)
    if pack is not None:
        assert isinstance(results[0], PackedSequence)
    outputs = flat(results)
    return outputs, torch.autograd.grad(weigh(outputs), [x, *states, *module.parameters()])


def assert_same(ours, theirs, **close):
    for mine, yours in zip(flat(ours), flat(theirs), strict=True):
        torch.testing.assert_close(mine, yours, **(close or CLOSE))


def initial(kind, layers, directions, *batch, dtype=torch.float64):
    shape = (layers * directions, *batch, UNITS)
    return [normal(*shape, seed=seed, dtype=dtype) for seed in ((2, 3) if kind == "LSTM" else (2,))]
