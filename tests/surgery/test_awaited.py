"""New values that are there one after the other come out as those that are there all at once."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import diffstruct as ds
from diffstruct.surgery.awaited import Awaited
from diffstruct.surgery.outline import outline

INITIALIZATIONS = ds.AsTheModel(), ds.SmallRandom(), ds.AtThreshold()


@cache
def widths():
    """Of a network that no test changes."""
    torch.manual_seed(0)
    layers = nn.Embedding(5, 6), nn.LayerNorm(6), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)
    return [*ds.find_widths(nn.Sequential(*layers), (torch.arange(5),)).widths.values()]


@settings(max_examples=20)
@given(st.sampled_from(INITIALIZATIONS), st.integers(0, 3), st.integers(0, 3), st.integers(1, 6))
def test_what_is_written_later_is_what_is_written_at_once(initialization, stream, hidden, keep):
    found = widths()
    changes = [
        ds.Change(width, tuple(range(min(keep, width.size))), add)
        for width, add in zip(found, (stream, hidden), strict=True)
    ]
    todo = outline(changes)
    thresholds = {width.name: 0.1 for width in found}
    at_once = {tensor: todo.value(tensor, tensor) for tensor in todo.tensors}
    awaited = Awaited({tensor: todo.shape(tensor) for tensor in todo.tensors})
    for values in (at_once, awaited):
        initialization(changes, values, thresholds, np.random.default_rng(0))
    awaited.check()
    for tensor in reversed(todo.tensors):
        later = todo.value(tensor, tensor)
        assert [*later.shape] == todo.shape(tensor)
        awaited.write(tensor, later, awaited.beside(tensor))
        assert torch.equal(later, at_once[tensor])


def test_values_that_are_not_there_cannot_be_written_into():
    weight = torch.ones(3, 2)
    awaited = Awaited({weight: (4, 2)})
    awaited[weight][3:] = 1.0
    with pytest.raises(ds.StructureError, match=r"write through NewUnits\.write"):
        awaited.check()
