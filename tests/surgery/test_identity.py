"""Tensors stay the same objects, with all that hangs on them."""

from __future__ import annotations

import torch
from surgery.stacks import Stack, train_step
from torch import nn

import diffstruct as ds
from diffstruct.surgery import Change, operate
from diffstruct.width import Axis


class Normalise(nn.Module):
    """Running statistics per unit, as buffers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.arange(1.0, size + 1))
        self.register_buffer("seen", torch.arange(10, size + 10))
        self.register_buffer("pairs", torch.arange(2.0 * size).view(2, size))


def test_buffers_are_cut_and_stay_the_same_objects():
    rnn, readout, norm = ds.nn.RNN(2, 4), nn.Linear(4, 1), Normalise(4)
    rnn.feeds(readout)
    declared = rnn.declare_width("rnn")
    slots = tuple(
        ds.Slot(norm, name, dim, ds.Role.INCOMING, declared.axis)
        for name, dim in (("mean", 0), ("seen", 0), ("pairs", 1))
    )
    width = ds.Width("rnn", declared.axis, declared.slots + slots)
    buffers = dict(norm.named_buffers())
    operate([Change(width, (1, 3), 1)])
    assert norm.mean.tolist() == [2.0, 4.0, 0.0]
    assert norm.seen.tolist() == [11, 13, 0]
    assert norm.seen.dtype == torch.int64
    assert norm.pairs.tolist() == [[1.0, 3.0, 0.0], [5.0, 7.0, 0.0]]
    assert all(norm.get_buffer(name) is buffer for name, buffer in buffers.items())
    assert rnn.weight_hh_l0.shape == (3, 3)


def test_frozen_parameters_stay_frozen_and_hooks_still_run():
    torch.manual_seed(0)
    model, calls = Stack(ds.nn.GRU, ds.nn.LSTM), []
    model.lower.weight_hh_l0.requires_grad_(False)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    weight = model.upper.weight_hh_l0
    weight.register_hook(lambda grad: calls.append(("hook", grad.shape)))
    weight.register_post_accumulate_grad_hook(lambda p: calls.append(("after", p.grad.shape)))
    train_step(model, optimizer)
    calls.clear()
    operate(model.change({"lower": ([0, 2], 2), "upper": ([1], 2)}), [optimizer])
    frozen = model.lower.weight_hh_l0.clone()
    train_step(model, optimizer)
    assert calls == [("hook", (12, 3)), ("after", (12, 3))]
    assert model.lower.weight_hh_l0.grad is None
    assert torch.equal(model.lower.weight_hh_l0, frozen)
    assert frozen.shape == (12, 4)


def test_the_tensors_inside_a_parametrization_are_cut():
    linear, axis = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), Axis(4)
    own = linear.parametrizations.weight
    slots = [ds.Slot(own, name, 0, ds.Role.INCOMING, axis) for name in ("original0", "original1")]
    slots.append(ds.Slot(linear, "bias", 0, ds.Role.INCOMING, axis))
    assert str(slots[0]) == "ParametrizationList.original0[dim 0]"
    x = torch.randn(2, 3)
    expected = linear(x)[:, [1, 3]]
    operate([Change(ds.Width("rows", axis, tuple(slots)), (1, 3), 0)])
    torch.testing.assert_close(linear(x), expected)
