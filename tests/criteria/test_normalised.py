"""Channels of normalised streams are measured as they would go, and go as they were measured."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.streams import NORMS, TOKENS, network
from torch import nn

import diffstruct as ds
from diffstruct.criteria import silencing
from diffstruct.criteria.normalised import VarianceShares, scale_gains
from diffstruct.surgery import Change, operate


def stream_of(model):
    found = ds.find_widths(model, (TOKENS,)).widths.values()
    (stream,) = (width for width in found if width.normalisation is not None)
    return stream


@pytest.mark.parametrize("norm", NORMS)
def test_gains_lose_what_the_variance_does(norm):
    model = network(size=8, norm=NORMS[norm])
    stream = stream_of(model)
    shares = VarianceShares([stream])
    units = np.array([1, 4])
    plain = shares.without(stream, units)
    assert {round(value, 9) for value in plain.values()} == {round((1 - 2 / 8) ** 0.5, 9)}
    entered = {}
    for module in {gain[0] for gain in plain}:
        module.register_forward_pre_hook(
            lambda module, args: entered.update({module: entered.get(module, args[0].double())})
        )
    with shares.watched():
        model(TOKENS)
    for (module, _), factor in shares.without(stream, units).items():
        x = entered[module]
        x = x - x.mean(-1, keepdim=True) if stream.normalisation.centred else x
        lost = (x[..., units] ** 2).sum(-1) / (x**2).sum(-1)
        assert factor == pytest.approx((1 - lost.mean().item()) ** 0.5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("tied", [False, True])
def test_what_was_measured_is_what_is_left(norm, tied):
    """Silencing channels with the gains scaled, and cutting them with the gains scaled, is the same model."""
    model = network(size=8, norm=NORMS[norm], tied=tied).double()
    stream = stream_of(model)
    shares, units = VarianceShares([stream]), np.array([0, 3])
    with shares.watched():
        model(TOKENS)
    gains, before = shares.without(stream, units), copy.deepcopy(model.state_dict())
    loud = silencing.silence(stream, units, np.zeros(8), gains)
    silent = model(TOKENS)
    silencing.restore(loud)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    operate([Change(stream, (1, 2, 4, 5, 6, 7), 0)])
    scale_gains(gains)
    torch.testing.assert_close(model(TOKENS), silent, rtol=1e-12, atol=1e-12)


class Reader(nn.Module):
    """Eight tokens that differ in two directions only, in a stream of sixteen channels."""

    def __init__(self, norm):
        super().__init__()
        self.tokens, self.norm, self.head = nn.Embedding(8, 16), norm(16), nn.Linear(16, 4)

    def forward(self, tokens):
        return self.head(self.norm(self.tokens(tokens)))


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("budget", [None, ds.Budget(parameters=150)])
def test_channels_that_nobody_needs_go(norm, budget):
    torch.manual_seed(0)
    model = Reader(norm)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    structure = ds.Structure(
        model, optimizer, example_inputs=(torch.arange(8),), total_steps=600, budget=budget
    )
    assert structure.widths["tokens"].size == 16
    for _ in range(600):
        tokens = torch.randint(8, (64,))
        loss = F.cross_entropy(model(tokens), tokens // 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        structure.step()
    structure.finish()
    assert structure.widths["tokens"].size < 12
    assert F.cross_entropy(model(torch.arange(8)), torch.arange(8) // 2) < 0.3
    assert (model.norm.eps or 0) == (norm(16).eps or 0)
    if budget is not None:
        assert sum(parameter.numel() for parameter in model.parameters()) <= 150


def test_a_stream_that_starts_from_one_channel_is_back_at_once():
    model = network(size=8, norm=nn.LayerNorm, uneven=0.0)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    structure = ds.Structure(model, optimizer, example_inputs=(TOKENS,), total_steps=100, start=1)
    assert {width.size for width in structure.widths.values()} == {1}
    for _ in range(3):
        model(TOKENS).sum().backward()
        optimizer.step()
        structure.step()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-6, atol=0)
