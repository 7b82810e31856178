"""Dimensions and tensors that several widths or modules share."""

from __future__ import annotations

import pytest
import torch
from surgery.stacks import trained, untouched
from torch import Tensor, nn

import diffstruct as ds
from diffstruct.surgery import Change, operate
from diffstruct.width import Attribute, Axis, Fixed, Layout, Product, Sum


def test_a_linear_layer_that_reads_two_concatenated_and_flattened_convolutions():
    """Linear behind flatten(cat(a, b)): both change at once, and each pixel goes with its channel."""
    one, two, pixels = Axis(3), Axis(2), Fixed(4)
    convolutions, linear = [nn.Conv2d(1, axis.size, 2) for axis in (one, two)], nn.Linear(20, 2)
    inputs = Product((Sum((one, two)), pixels))
    size = Attribute(linear, "in_features", inputs)
    read = ds.Slot(linear, "weight", 1, ds.Role.OUTGOING, inputs)
    changes = [
        Change(
            ds.Width(
                name,
                axis,
                (
                    ds.Slot(convolution, "weight", 0, ds.Role.INCOMING, axis),
                    ds.Slot(convolution, "bias", 0, ds.Role.INCOMING, axis),
                    read,
                ),
                (Attribute(convolution, "out_channels", axis), size),
            ),
            keep,
            add,
        )
        for name, axis, convolution, keep, add in (
            ("one", one, convolutions[0], (0, 2), 0),
            ("two", two, convolutions[1], (1,), 2),
        )
    ]
    x = torch.randn(5, 1, 3, 3)

    def output(channels: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("bcp,ocp->bo", channels.flatten(2), weight.view(2, -1, 4)) + linear.bias

    def channels() -> Tensor:
        return torch.cat([convolution(x) for convolution in convolutions], 1)

    expected = output(channels()[:, [0, 2, 4]], linear.weight.view(2, 5, 4)[:, [0, 2, 4]].flatten(1))
    operate(changes)
    assert [c.out_channels for c in convolutions] == [2, 3]
    assert linear.in_features == linear.weight.shape[1] == 20
    torch.testing.assert_close(linear(channels().flatten(1)), expected)


@pytest.mark.parametrize("add", [0, 1])
def test_two_widths_with_one_dimension_are_refused(add):
    model, optimizer = trained()
    width = model.lower.declare_width("lower")
    axis = Axis(3)
    other = ds.Width("other", axis, (ds.Slot(model.multiplier, "weight", 0, ds.Role.MULTIPLIER, axis),))
    with untouched(ds.StructureError, model, optimizer, "let one width cover both"):
        operate([Change(width, (0, 1), add), Change(other, (0, 1), add)], [optimizer])


def test_two_layouts_of_one_dimension_are_refused_unless_they_are_equal():
    linear, one, two = nn.Linear(12, 1), Axis(3), Axis(3)

    def change(axis: Axis, layout: Layout) -> Change:
        slot = ds.Slot(linear, "weight", 1, ds.Role.OUTGOING, layout)
        return Change(ds.Width("width", axis, (slot,)), (0, 1), 0)

    both = Product((Sum((one, two)), Fixed(2)))
    for other in (Product((Sum((two, one)), Fixed(2))), Product((Fixed(2), Sum((one, two))))):
        with pytest.raises(ds.StructureError, match="or one layout mention both"):
            operate([change(one, both), change(two, other)])
    again = Sum((Product((one, Fixed(2))), Product((two, Fixed(2)))))
    operate([change(one, both), change(two, again)])
    assert linear.weight.shape == (1, 8)
