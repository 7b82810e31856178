"""The running statistics of a BatchNorm follow when units in front of it go."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

import diffstruct as ds
from diffstruct.criteria import removal
from diffstruct.criteria.batch_norms import BatchNorms, differences
from diffstruct.surgery import Change, copy_of, operate


class Net(nn.Module):
    """Units that feed a BatchNorm, one whose channels are two widths, and one behind it."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(4, 5)
        self.join, self.mix = nn.BatchNorm1d(11), nn.Linear(11, 7)
        self.norm, self.head = nn.BatchNorm1d(7), nn.Linear(7, 3)

    def forward(self, x):
        joined = self.join(torch.cat([self.one(x).relu(), self.two(x).relu() + 1], 1))
        return self.head(self.norm(self.mix(joined)).relu())


X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0)).double()


def trained(seed=0):
    """A net whose running statistics are those of the batch."""
    torch.manual_seed(seed)
    net = Net().double()
    for module in (net.join, net.norm):
        module.momentum = None  # the mean over all calls
        nn.init.normal_(module.weight)
        nn.init.normal_(module.bias)
    net(X)
    net.join.momentum = net.norm.momentum = 0.1
    return net.eval()


def silenced(net, width, units):
    """A copy of a net whose units of a width are not read."""
    twin = copy.deepcopy(net)
    with torch.no_grad():
        getattr(twin, {"mix": "head", "one": "mix", "two": "mix"}[width]).weight[:, units] = 0
    return twin


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    gone=st.dictionaries(
        st.sampled_from(["one", "two", "mix"]), st.sets(st.integers(0, 3), min_size=1), min_size=1
    ),
    add=st.integers(0, 2),
)
def test_after_the_surgery_statistics_are_those_of_the_units_that_are_left(seed, gone, add):
    net = trained(seed)
    widths = {width.name: width for width in ds.find_widths(net, (X,)).widths.values()}
    norms, twin = BatchNorms(net), copy.deepcopy(net)
    follower = copy_of(net, twin, widths.values())
    with norms.watched() as reference:
        net(X)
    offsets = {"one": 0, "two": 6, "mix": 0}
    loud = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        for name, units in gone.items():
            reader = net.head if name == "mix" else net.mix
            reader.weight[:, [offsets[name] + unit for unit in units]] = 0
    with norms.watched(reference) as seen:
        expected = net(X)  # this run has shifted the statistics already: they are put back
    net.load_state_dict({**net.state_dict(), **{k: v for k, v in loud.items() if "running" in k}})
    changes = {
        name: Change(widths[name], tuple(sorted({*range(widths[name].size)} - units)), add)
        for name, units in gone.items()
    }
    operate(changes.values(), copies=[follower])
    norms.follow([differences(seen, reference)], changes, [follower])
    torch.testing.assert_close(net(X), expected)
    for module in (net.join, net.norm):
        same = getattr(twin, "join" if module is net.join else "norm")
        assert torch.equal(module.running_mean, same.running_mean)
    if not add:
        found = net.norm.running_mean, net.norm.running_var
        net.train()
        net.norm.reset_running_stats()
        net.norm.momentum = None
        net.eval()
        net.norm.train()
        net(X)  # the statistics themselves, with the first BatchNorm as in evaluation
        torch.testing.assert_close(found[0], net.norm.running_mean)
        torch.testing.assert_close(found[1], net.norm.running_var, rtol=1e-3, atol=1e-4)


def test_a_model_in_training_is_only_watched():
    net = trained().train()
    norms, before = BatchNorms(net), copy.deepcopy(net.state_dict())
    with norms.watched() as reference:
        net.mix(net.join(torch.cat([net.one(X).relu(), net.two(X).relu() + 1], 1)))
    assert [*reference] == [net.join]
    twin = trained().train()
    twin.mix(twin.join(torch.cat([twin.one(X).relu(), twin.two(X).relu() + 1], 1)))
    assert torch.equal(net.join.running_mean, twin.join.running_mean)
    assert not torch.equal(net.join.running_mean, before["join.running_mean"])
    assert not net.join._forward_pre_hooks


@pytest.mark.parametrize("affine", [True, False])
def test_finish_leaves_a_model_whose_outputs_are_those_that_were_measured(affine, monkeypatch):
    """Units that say nearly a constant go at the end: only the statistics have to follow."""
    monkeypatch.setattr(removal, "AT_THE_END", 1.0)
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Linear(4, 12),
        nn.Sigmoid(),
        nn.Linear(12, 8),
        nn.BatchNorm1d(8, affine=affine),
        nn.ReLU(),
        nn.Linear(8, 3),
    )
    with torch.no_grad():
        net[0].weight[6:] *= 1e-3  # these units say one half
    x, y = X.float(), X[:, :3].argmax(1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    structure = ds.Structure(
        net,
        optimizer,
        example_inputs=(x,),
        total_steps=200,
        criterion=ds.TaylorImportance(price=3.0),
        rule=ds.Rule(p_delete=0),
        include=["0"],
    )
    average = AveragedModel(net)
    structure.follow(average)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        structure.step()
    average.update_parameters(net)
    net.eval()
    before = F.cross_entropy(net(x), y).item()
    won = structure.criterion.tracker.won
    net.train()
    structure.finish()
    (event,) = structure.history.events
    assert len(event.removed) >= 2
    after = F.cross_entropy(net.eval()(x), y).item()
    assert (after - before) / won == pytest.approx(event.cost, abs=2e-3)
    np.testing.assert_allclose(average.module[3].running_mean, net[3].running_mean, rtol=1e-4, atol=1e-5)
