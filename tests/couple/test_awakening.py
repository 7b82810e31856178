"""What lies in front of weights that begin at nothing, or nearly so, is proved as if they did not."""

import pytest
import torch
from torch import nn
from zoo.checks import assert_unchanged, snapshot

import diffstruct as ds

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class Branch(nn.Module):
    """Units of `up` can be learned, and those of `mixed` cannot: a mean is taken over them, with a gain."""

    def __init__(self):
        super().__init__()
        self.up, self.mixed, self.gain = nn.Linear(6, 5), nn.Linear(5, 8), nn.Parameter(torch.ones(8))
        self.down, self.scale = nn.Linear(8, 6), nn.Parameter(torch.ones(6))

    def forward(self, x):
        y = self.gain * self.mixed(self.up(x).relu())
        return x + self.scale * self.down(y * y.mean(-1, keepdim=True))


def untouched(branch):
    pass


def layer_scale(branch):
    nn.init.constant_(branch.scale, 1e-6)


def skip_init(branch):
    branch.scale = nn.Parameter(torch.zeros(1))


def zero_init(branch):
    nn.init.zeros_(branch.down.weight)
    nn.init.zeros_(branch.down.bias)


def small_init(branch):
    for layer in (branch.up, branch.mixed, branch.down):
        nn.init.normal_(layer.weight, std=1e-4)
        nn.init.zeros_(layer.bias)


@pytest.mark.parametrize("begin", [untouched, layer_scale, skip_init, zero_init, small_init])
def test_a_branch_that_is_not_heard_yet_is_proved_all_the_same(begin):
    torch.manual_seed(0)
    branch = Branch()
    begin(branch)
    model = nn.Sequential(nn.Linear(6, 6), branch, nn.Linear(6, 3))
    before = snapshot(model)
    found = ds.find_widths(model, (X,))
    assert_unchanged(model, before)
    assert {*found.widths} == {"0", "1.up"}
    (refusal,) = (each for each in found.refused if "1.mixed.weight[0]" in each.places)
    assert "changes the model's output" in refusal.reason


def test_widths_that_are_tied_are_proved_so_too():
    torch.manual_seed(0)
    branches = nn.Sequential(Branch(), Branch())
    for branch in branches:
        layer_scale(branch)
    model = nn.Sequential(nn.Linear(6, 6), branches, nn.Linear(6, 3))
    assert {*ds.find_widths(model, (X,), tie=["*.up"]).widths} == {"0", "*.up"}


def test_attention_in_a_branch_that_is_not_heard_yet_keeps_its_scale():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 8) for _ in range(3))
            self.out, self.scale = nn.Linear(8, 6), nn.Parameter(torch.full((6,), 1e-6))

        def forward(self, x):
            q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(0, 1) for layer in (self.q, self.k, self.v))
            attended = nn.functional.scaled_dot_product_attention(q, k, v)
            return x + self.scale * self.out(attended.transpose(0, 1).flatten(1))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), Attending(), nn.Linear(6, 3))
    width = ds.find_widths(model, (X,)).widths["1.q.head_width"]
    assert any(each.part is not None for each in width.rescaled)
