"""Damaged state dicts: the model runs and has all of it, or an error is raised and nothing has changed."""

import pytest
import torch
from helpers.any_module import X, branches, mlp
from helpers.resizable import Attention, Tied, assert_untouched, everything
from hypothesis import given, settings
from hypothesis import strategies as st

import diffstruct as ds

VALUES = [
    None,
    3,
    "text",
    b"bytes",
    [1.0],
    torch.ones(()),
    torch.ones(2, 2, 2),
    torch.ones(3, dtype=torch.int64),
]


@st.composite
def damages(draw, state):
    """The state dict with a few entries lost, exchanged, of another shape or kind."""
    state = dict(state)
    for _ in range(draw(st.integers(1, 3))):
        key, kind = (
            draw(st.sampled_from([*state])),
            draw(st.sampled_from(["lose", "add", "kind", "shape", "swap"])),
        )
        value = state[key]
        if kind == "lose" and len(state) > 1:
            del state[key]
        elif kind == "add":
            state[key + "x"] = value
        elif kind == "kind":
            state[key] = draw(st.sampled_from(VALUES))
        elif kind == "swap":
            other = draw(st.sampled_from([*state]))
            state[key], state[other] = state[other], value
        elif isinstance(value, torch.Tensor):
            shape = [draw(st.sampled_from([size, size, 0, 1, 2, size + 1, 2 * size])) for size in value.shape]
            state[key] = torch.ones(shape, dtype=value.dtype)
    return state


@pytest.mark.parametrize("given_inputs", [True, False], ids=["with inputs", "without"])
@pytest.mark.parametrize("build", [mlp, branches, Tied, Attention])
@settings(max_examples=40)
@given(data=st.data())
def test_a_damaged_state_dict_is_loaded_whole_or_not_at_all(build, given_inputs, data):
    model = build()
    state = data.draw(damages(build().state_dict()))
    before = everything(model)
    try:
        ds.resize_to(model, state, (X,) if given_inputs else None)
    except ds.StructureError:
        assert_untouched(model, before)
        return
    for key, value in model.state_dict().items():
        if key in state:  # one of the names of a shared parameter may be missing
            torch.testing.assert_close(value, state[key].to(value.dtype), rtol=0, atol=0, equal_nan=True)
    if given_inputs:
        assert model(X).shape == (32, 5) if build is Tied else (32, 3)
