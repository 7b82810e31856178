"""Dimensions in which units of several widths lie in nested layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from helpers.layouts import expected_sources, layouts, moves
from hypothesis import assume, given
from hypothesis import strategies as st
from surgery.stacks import slow, state_of, untouched
from torch import Tensor, nn
from torch.optim import Optimizer

import diffstruct as ds
from diffstruct.surgery import Change, operate
from diffstruct.width import Attribute, Axis, Layout
from diffstruct.width.layout import axes, length


class Nested(nn.Module):
    """Tensors laid out in any way, and integers that tell how long they are."""

    PLACES: ClassVar = {"weight": (0, 1), "cube": (1, None, 2), "bias": (2,), "mean": (0,)}
    """For each dimension of each tensor, which of the three layouts it has."""

    def __init__(self, layouts: Sequence[Layout]) -> None:
        super().__init__()
        self.layouts, self.stubborn = layouts, False
        lengths = [length(layout) for layout in layouts]
        self.weight = nn.Parameter(torch.randn(lengths[0], lengths[1]))
        self.cube = nn.Parameter(torch.randn(lengths[1], 2, lengths[2]))
        self.bias = nn.Parameter(torch.randn(lengths[2]))
        self.register_buffer("mean", torch.randn(lengths[0]))
        self.shape, self.in_features = tuple(lengths), lengths[1]

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "in_features" and self.stubborn:
            raise AttributeError("stubborn")
        super().__setattr__(name, value)

    def widths(self, pool: Sequence[Axis]) -> dict[Axis, ds.Width]:
        """One for each axis that some dimension has."""
        slots = [
            ds.Slot(self, name, dim, ds.Role.INCOMING, self.layouts[number])
            for name, numbers in self.PLACES.items()
            for dim, number in enumerate(numbers)
            if number is not None
        ]
        attributes = [Attribute(self, "shape", layout, index) for index, layout in enumerate(self.layouts)]
        attributes.append(Attribute(self, "in_features", self.layouts[1]))
        places = {axis: tuple(slot for slot in slots if axis in axes(slot.layout)) for axis in pool}
        return {a: ds.Width("width", a, own, tuple(attributes)) for a, own in places.items() if own}

    def expected(self, name: str, value: Tensor, came_from: Sequence[list[int]]) -> Tensor:
        """What becomes of a tensor, if each layout's entries come from there, or from nowhere: -1."""
        array = value.detach().numpy()
        for dim, number in enumerate(self.PLACES[name.partition(":")[0]]):
            if number is not None:
                padded = np.pad(array, [(0, int(other == dim)) for other in range(array.ndim)])
                array = padded.take(came_from[number], axis=dim)  # the last entry is the zero
        return torch.from_numpy(array)

    def train_step(self, optimizer: Optimizer) -> None:
        for parameter in self.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()


@st.composite
def nested(draw: Any) -> tuple[Nested, list[Axis]]:
    pool = [Axis(draw(st.integers(1, 3))) for _ in range(3)]
    chosen = [draw(layouts(pool)) for _ in range(3)]
    torch.manual_seed(draw(st.integers(0, 99)))
    return Nested(chosen), pool


@slow
@given(case=nested(), data=st.data())
def test_nested_layouts_of_several_widths_are_cut_entry_by_entry(case: Any, data: Any):
    model, pool = case
    widths = model.widths(pool)
    assume(widths)
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
    for _ in range(data.draw(st.integers(1, 3))):
        model.train_step(optimizer)
        objects = dict(model.named_parameters()) | dict(model.named_buffers())
        plan = data.draw(moves([*widths]))
        came_from = [expected_sources(layout, pool, plan) for layout in model.layouts]
        expected = {
            name: model.expected(name, value, came_from)
            for name, value in state_of(model, optimizer)
            if isinstance(value, Tensor) and value.ndim
        }
        assert any("exp_avg_sq" in name for name in expected)
        operate([Change(widths[axis], tuple(keep), add) for axis, (keep, add) in plan.items()], [optimizer])

        found = dict(state_of(model, optimizer))
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert all(found[name] is value for name, value in objects.items())
        assert {axis: axis.size for axis in plan} == {axis: len(k) + add for axis, (k, add) in plan.items()}
        assert model.shape == tuple(map(len, came_from))
        assert model.in_features == len(came_from[1])
        if all(model.shape):
            hidden = model.weight @ model.cube[:, 0] + model.bias
            hidden.sum().backward()
    model.train_step(optimizer)


@slow
@given(case=nested(), data=st.data())
def test_a_change_of_nested_layouts_is_undone_when_its_last_step_fails(case: Any, data: Any):
    model, pool = case
    widths = model.widths(pool)
    assume(widths)
    optimizer = torch.optim.Adam(model.parameters())
    model.train_step(optimizer)
    plan = data.draw(moves([*widths]))
    changes = [Change(widths[axis], tuple(keep), add) for axis, (keep, add) in plan.items()]
    sizes, shape = [axis.size for axis in pool], model.shape
    with untouched(AttributeError, model, optimizer, "stubborn"):
        model.stubborn = True
        operate(changes, [optimizer])
    assert ([axis.size for axis in pool], model.shape) == (sizes, shape)
    assert length(model.layouts[1]) == model.weight.shape[1]
    model.stubborn = False
    operate(changes, [optimizer])
    assert [axis.size for axis in plan] == [len(keep) + add for keep, add in plan.values()]
