"""`ds.nn.Multiplier`: one trainable factor per unit."""

import copy

import pytest
import torch
from helpers.recurrent import BATCH, CLOSE, STEPS, UNITS, normal
from torch import nn

import diffstruct as ds


def test_multiplier_scales_each_unit():
    layer = ds.nn.Multiplier(UNITS, dtype=torch.float64)
    x = normal(STEPS, BATCH, UNITS).requires_grad_()
    assert torch.equal(layer(x), x)  # the factors start at one
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -2.0, 0.0, 0.5]))
    assert torch.equal(layer(x), x * torch.tensor([1.0, -2.0, 0.0, 0.5]))
    gradient = normal(STEPS, BATCH, UNITS, seed=2)
    layer(x).backward(gradient)
    torch.testing.assert_close(layer.weight.grad, (x * gradient).sum((0, 1)).detach(), **CLOSE)
    assert repr(layer) == f"Multiplier(num_units={UNITS})"


@pytest.mark.parametrize(("units", "inputs"), [(4, 3), (4, 1), (1, 4)])
def test_multiplier_refuses_inputs_of_another_size(units, inputs):
    """Broadcasting would hide that a size of one does not fit."""
    with pytest.raises(RuntimeError):
        ds.nn.Multiplier(units)(torch.ones(2, inputs))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_multiplier_folds_into_its_reader(bias, dtype):
    layer = ds.nn.Multiplier(UNITS, dtype=dtype)
    nn.init.normal_(layer.weight)
    reader = nn.Linear(UNITS, 2, bias=bias, dtype=dtype)
    before = copy.deepcopy(reader.state_dict())
    randomness = torch.get_rng_state()
    folded = layer.fold_into(reader)
    assert torch.equal(torch.get_rng_state(), randomness)

    assert type(folded) is nn.Linear
    assert repr(folded) == repr(reader)
    assert folded.weight.dtype == dtype
    x = normal(STEPS, BATCH, UNITS, dtype=dtype)
    torch.testing.assert_close(folded(x), reader(layer(x)), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        for parameter in folded.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in reader.state_dict().items())
