"""Surviving entries are bit-equal and new ones zero, in every tensor, gradient and optimizer state."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from surgery.stacks import Stack, cut_with_numpy, plans, slow, stacks, state_of, train_step
from torch import Tensor

import diffstruct as ds
from diffstruct.surgery import carry, operate


@slow
@given(model=stacks(), data=st.data())
def test_a_sequence_of_changes_equals_the_same_cuts_made_with_numpy(model: Stack, data: Any):
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
    axes = model.axes()
    for round in range(data.draw(st.integers(1, 4))):
        train_step(model, optimizer, round)
        plan = plans(data.draw, model)
        before = dict(state_of(model, optimizer))
        sizes = {"lower": model.lower.hidden_size, "upper": model.upper.hidden_size}
        expected = {
            name: cut_with_numpy(value, axes[name.split(":")[0]], plan)
            for name, value in before.items()
            if isinstance(value, Tensor) and value.ndim
        }
        state = torch.randn(2, 2, sizes["lower"])
        changes = model.change(plan)
        operate(changes, [optimizer])

        after = dict(state_of(model, optimizer))
        assert after.keys() == before.keys()
        for name, value in expected.items():
            assert after[name].dtype == before[name].dtype
            assert torch.equal(after[name], value), name
        sizes |= {name: len(keep) + add for name, (keep, add) in plan.items()}
        lower, upper = sizes["lower"], sizes["upper"]
        inputs = lower * (1 + model.lower.bidirectional)
        assert (model.lower.input_size, model.lower.hidden_size) == (2, lower)
        assert (model.upper.input_size, model.upper.hidden_size) == (inputs, upper)
        assert (model.multiplier.num_units, model.lower.declare_width("lower").size) == (inputs, lower)
        assert model.readout.in_features == upper * (1 + model.upper.bidirectional)
        if "lower" in plan:
            (change,) = (c for c in changes if c.width.name == "lower")
            assert torch.equal(
                carry(state, change), cut_with_numpy(state, [(1, None), (1, None), (1, "lower")], plan)
            )

        x = torch.randn(4, 2, 2).to(model.readout.weight)
        tolerance = {"rtol": 0.05, "atol": 0.05} if x.dtype == torch.bfloat16 else {}
        torch.testing.assert_close(model(x)[0], model(x, plain=True)[0], **tolerance)
    train_step(model, optimizer)
    assert all(p.grad.shape == p.shape for p in model.parameters())


@slow
@given(model=stacks(dtypes=(torch.float64,)), data=st.data())
def test_units_with_zero_outgoing_weights_can_be_added_and_removed_without_changing_the_output(
    model: Stack, data: Any
):
    name = data.draw(st.sampled_from(["lower", "upper"]))
    layer, place = getattr(model, name), int(name == "upper")
    size, directions = layer.hidden_size, 1 + layer.bidirectional
    x = torch.randn(4, 2, 2, dtype=torch.float64)

    def hidden(width: int) -> Any:
        h = torch.randn(layer.num_layers * directions, 2, width, dtype=torch.float64)
        return (h, torch.randn_like(h)) if isinstance(layer, ds.nn.LSTM) else h

    def change_without_effect(state: Any, keep: list[int], add: int) -> None:
        states = [None, None]
        states[place] = state
        output = model(x, states)[0]
        (change,) = model.change({name: (keep, add)})
        operate([change])
        carried = (
            tuple(carry(part, change) for part in state) if isinstance(state, tuple) else carry(state, change)
        )
        states[place] = carried
        # Sums over another number of terms, some of them zero, are rounded in another order.
        torch.testing.assert_close(model(x, states)[0], output, rtol=0, atol=1e-12)

    added = data.draw(st.integers(1, 3))
    change_without_effect(hidden(size), [*range(size)], added)
    # Their incoming weights and states may be anything, as long as their outgoing weights are zero.
    with torch.no_grad():
        for parameter, axes in model.axes().items():
            owner, _, attribute = parameter.partition(".")
            tensor = getattr(getattr(model, owner), attribute, None)
            if tensor is None:
                assert "bias" in attribute
                continue
            blocks, width = axes[0]
            if owner == name and width == name:
                tensor.view(blocks, size + added, -1)[:, size:] = 0.7
            for dim, (blocks, width) in enumerate(axes):
                if width == name and dim == 1:
                    tensor.view(len(tensor), blocks, -1)[..., size:] = 0
    change_without_effect(hidden(size + added), [*range(size)], 0)
