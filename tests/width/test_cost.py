"""What a model of given sizes costs, against counting its parameters after real surgery."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import diffstruct as ds
from diffstruct.surgery import Change, operate
from diffstruct.width.cost import sizes_of, unit_costs


class ConvNet(nn.Module):
    """Normalised channels, a depthwise layer, and channels that are flattened with their pixels."""

    def __init__(self):
        super().__init__()
        self.one, self.norm = nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5)
        self.depth = nn.Conv2d(5, 5, 3, groups=5)
        self.two, self.out = nn.Conv2d(5, 4, 1), nn.Linear(4 * 9, 3)

    def forward(self, x):
        hidden = self.depth(torch.relu(self.norm(self.one(x))))
        return self.out(torch.tanh(self.two(hidden)).flatten(1))


class Concatenated(nn.Module):
    """Two widths side by side in one weight, and a bias that nothing changes."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = nn.Linear(3, 4), nn.Linear(3, 6, bias=False), nn.Linear(10, 2)

    def forward(self, x):
        return self.out(torch.cat([torch.tanh(self.one(x)), torch.tanh(self.two(x))], -1))


class Shared(nn.Module):
    """A weight that two layers share, which counts once."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(4, 5)
        self.out = nn.Linear(5, 1)
        self.three.weight = self.two.weight

    def forward(self, x):
        hidden = torch.tanh(self.one(x))
        return self.out(torch.tanh(self.two(hidden) + self.three(hidden)))


class Recurrent(nn.Module):
    """Four gates of each unit, each reading all units."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(3, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.out(self.rnn(x)[0])


def mlp():
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))


CASES = {
    "mlp": (mlp, (2, 3)),
    "convolutions": (ConvNet, (2, 2, 7, 7)),
    "concatenated": (Concatenated, (2, 3)),
    "shared": (Shared, (2, 3)),
    "recurrent": (Recurrent, (4, 2, 3)),
}


def found(kind):
    torch.manual_seed(0)
    make, shape = CASES[kind]
    model = make()
    return model, ds.find_widths(model, (torch.randn(shape),)).widths


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@settings(max_examples=8)
@given(data=st.data())
@pytest.mark.parametrize("kind", [*CASES])
def test_the_cost_at_other_sizes_is_what_is_counted_after_surgery(kind, data):
    model, widths = found(kind)
    assert widths
    count = ds.ParameterCount(model, widths)
    assert count(sizes_of(widths.values())) == parameters(model)
    changes = []
    for width in widths.values():
        keep = data.draw(st.integers(1, width.size))
        changes.append(Change(width, tuple(range(keep)), data.draw(st.integers(0, 3))))
    sizes = {change.width.name: change.new_size for change in changes}
    expected = count(sizes)
    operate(changes, [])
    assert parameters(model) == expected
    assert sizes_of(widths.values()) == sizes
    assert count(sizes) == ds.ParameterCount(model, widths)(sizes) == expected  # before and after


@pytest.mark.parametrize("kind", [*CASES])
def test_a_unit_costs_what_is_saved_without_it(kind):
    _, widths = found(kind)
    for name in widths:
        model, fresh = found(kind)
        costs = unit_costs(ds.ParameterCount(model, fresh), sizes_of(fresh.values()))
        before, width = parameters(model), fresh[name]
        operate([Change(width, tuple(range(1, width.size)), 0)], [])
        assert costs[name] == before - parameters(model) > 0


def test_what_a_unit_costs_follows_the_other_sizes():
    model, widths = found("mlp")
    count = ds.ParameterCount(model, widths)
    assert unit_costs(count, {"0": 5, "2": 4}) == {"0": 3 + 1 + 4, "2": 5 + 1 + 2}
    assert unit_costs(count, {"0": 5, "2": 100}) == {"0": 3 + 1 + 100, "2": 5 + 1 + 2}


def test_a_cost_of_ones_own_is_asked_for_one_unit_less():
    asked = []

    def cost(sizes):
        asked.append(dict(sizes))
        return sizes["a"] ** 2 + 3.0 * sizes["b"]

    assert unit_costs(cost, {"a": 4, "b": 7}) == {"a": 7.0, "b": 3.0}
    assert {"a": 3, "b": 7} in asked
    assert {"a": 4, "b": 6} in asked


def test_what_would_save_nothing_costs_nothing():
    assert unit_costs(lambda sizes: -sizes["a"], {"a": 4}) == {"a": 0.0}


def test_a_single_unit_of_a_width_can_be_priced():
    model, widths = found("mlp")
    assert unit_costs(ds.ParameterCount(model, widths), {"0": 1, "2": 1}) == {"0": 5.0, "2": 4.0}


def test_buffers_cost_nothing():
    model, widths = found("convolutions")
    assert any(buffer.numel() for buffer in model.buffers())
    expected = sum(p.numel() for p in model.parameters())
    assert ds.ParameterCount(model, widths)(sizes_of(widths.values())) == expected
