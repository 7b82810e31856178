"""Residual blocks as a module."""

import copy

import pytest
import torch
from torch import nn

import diffstruct as ds


def test_branches_are_added_up_one_after_the_other():
    torch.manual_seed(0)
    module = ds.nn.Residual(lambda: nn.Linear(4, 4), depth=3)
    x = torch.randn(5, 4)
    expected = x
    for branch in module:
        expected = expected + branch(expected)
    assert torch.equal(module(x), expected)
    assert len({branch.weight for branch in module}) == 3
    assert [*module.state_dict()][:2] == ["0.weight", "0.bias"]
    assert torch.equal(copy.deepcopy(module)(x), expected)


@pytest.mark.parametrize("depth", [0, -1, 2.5])
def test_depth_must_be_a_number_of_branches(depth):
    with pytest.raises(ds.ConfigurationError, match="depth"):
        ds.nn.Residual(lambda: nn.Linear(4, 4), depth=depth)
