"""Copies of a model, such as an average of its weights, that change with it."""

from __future__ import annotations

import copy

import pytest
import torch
from surgery.stacks import ConstantSize, Stack, draw_new, train_step, trained
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

import diffstruct as ds
from diffstruct.surgery import Change, copy_of, operate
from diffstruct.width import Attribute, Axis, Layout
from diffstruct.width.layout import spread

EVENTS = (((0, 2), 3), ((1, 3, 4), 0), ((0, 1, 2), 1))
"""Units that stay and number of units added, event by event, of a width of three or four units."""


class Scale(nn.Module):
    """A parametrization that multiplies columns of a weight by factors of units, and holds their layout."""

    def __init__(self, factors: nn.Parameter, axis: Axis, layout: Layout) -> None:
        super().__init__()
        self.factors, self._axis, self._layout = factors, axis, layout

    def forward(self, weight: Tensor) -> Tensor:
        assert self._axis.size == len(self.factors)
        return weight * spread(self.factors, self._layout, self._axis)


def scaled() -> tuple[nn.Sequential, ds.Width]:
    """A perceptron whose hidden units have factors, and its width."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    units = Axis(4)
    scale = Scale(nn.Parameter(torch.rand(4, dtype=torch.float64) + 0.5), units, units)
    parametrize.register_parametrization(model[2], "weight", scale)
    slots = (
        ds.Slot(model[0], "weight", 0, ds.Role.INCOMING, units),
        ds.Slot(model[0], "bias", 0, ds.Role.INCOMING, units),
        ds.Slot(model[2].parametrizations.weight, "original", 1, ds.Role.OUTGOING, units),
        ds.Slot(scale, "factors", 0, ds.Role.MULTIPLIER, units),
    )
    sizes = (Attribute(model[0], "out_features", units), Attribute(model[2], "in_features", units))
    return model, ds.Width("hidden", units, slots, sizes)


def test_an_average_of_a_model_that_computes_with_layouts_follows_its_events():
    model, width = scaled()
    average = AveragedModel(model, avg_fn=lambda averaged, now, _: now.clone())
    average.update_parameters(model)
    follower = copy_of(model, average, [width])
    x = torch.randn(5, 3, dtype=torch.float64)
    for keep, add in EVENTS:
        operate([Change(width, keep, add)], initialize=draw_new, copies=[follower])
        torch.testing.assert_close(average(x), model(x), rtol=0, atol=0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        assert not torch.equal(average(x), model(x))  # survivors are the copy's own
        average.update_parameters(model)
        torch.testing.assert_close(average(x), model(x), rtol=0, atol=0)
    assert average.module[2].in_features == model[2].in_features == width.size == 4


def test_a_copy_of_recurrent_layers_can_declare_its_width_and_change_by_itself():
    model, optimizer = trained()
    twin = copy.deepcopy(model)
    widths = [getattr(model, name).declare_width(name) for name in ("lower", "upper")]
    follower = copy_of(model, twin, widths)
    x = torch.randn(4, 2, 2, dtype=torch.float64)
    for seed, (keep, add) in enumerate(EVENTS):
        operate([Change(widths[0], keep, add)], [optimizer], draw_new, [follower])
        train_step(model, optimizer, seed)
        twin.load_state_dict(model.state_dict())
        torch.testing.assert_close(twin(x)[0], model(x)[0], rtol=0, atol=0)
        assert twin.lower.declare_width("lower").size == widths[0].size == len(keep) + add
    operate([Change(twin.lower.declare_width("lower"), (0,), 0)])
    assert (twin.lower.hidden_size, model.lower.hidden_size) == (1, 4)


def test_surviving_entries_stay_those_of_the_copy_and_new_ones_are_those_of_the_model():
    model, width = scaled()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter += 1.0
    before = twin[0].weight.detach().clone()
    operate([Change(width, (1, 3), 2)], initialize=draw_new, copies=[copy_of(model, twin, [width])])
    assert torch.equal(twin[0].weight[:2], before[[1, 3]])
    assert torch.equal(twin[0].weight[2:], model[0].weight[2:])


def test_a_copy_whose_size_cannot_be_set_undoes_the_surgery_in_the_model_and_in_the_copy():
    model, width = scaled()
    twin = copy.deepcopy(model)
    follower = copy_of(model, twin, [width])
    x = torch.randn(5, 3, dtype=torch.float64)
    before = model(x)
    twin[0].__class__ = ConstantSize
    with pytest.raises(AttributeError, match="cannot be set"):
        operate([Change(width, (0, 1), 3)], initialize=draw_new, copies=[follower])
    assert width.size == 4
    assert torch.equal(model(x), before)
    assert torch.equal(twin(x), before)


def test_what_is_no_copy_of_the_model_as_it_is_now_is_refused():
    model, width = scaled()
    former = copy.deepcopy(model)
    operate([Change(width, (0, 1), 0)])
    other = copy.deepcopy(model)
    other[2].parametrizations.weight[0]._layout = Axis(3)
    for wrong, missing in (
        (former, r"Linear.weight\[dim 0\] of shape \[2, 3\]"),
        (model, "of its own"),
        (nn.Sequential(nn.Linear(3, 2)), "ParametrizationList.original"),
        (other, "layout '_layout' of a Scale"),
    ):
        with pytest.raises(ds.StructureError, match=missing):
            copy_of(model, wrong, [width])


def test_a_plain_copy_of_layers_of_ours_follows():
    model = Stack(ds.nn.GRU, ds.nn.LSTM)
    twin = copy.deepcopy(model)
    twin.lower, twin.upper = twin.lower.to_torch(), twin.upper.to_torch()
    width = model.lower.declare_width("lower")
    operate([Change(width, (0, 2), 2)], initialize=draw_new, copies=[copy_of(model, twin, [width])])
    x = torch.randn(4, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(twin(x)[0], model(x)[0])


def test_an_average_follows_a_structure_that_has_put_multipliers_into_the_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    x = torch.randn(5, 3)
    always = ds.Rule(p_add=1.0, p_spontaneous=1.0, p_delete=0.5, max_units=8)
    structure = ds.Structure(
        model,
        optimizer,
        example_inputs=(x,),
        total_steps=20,
        criterion=ds.Multipliers(ds.L1Price(0.1)),
        rule=always,
        start=1,
        interval=1,
    )
    average = AveragedModel(model, avg_fn=lambda averaged, now, _: now.clone())
    structure.follow(average)
    for _ in range(20):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        structure.step()
        assert average(x).shape == (5, 2)
        average.update_parameters(model)
        torch.testing.assert_close(average(x), model(x), rtol=0, atol=0)
    assert structure.history.added() > 0
    assert structure.history.removed() > 0
