"""What surgery refuses, before anything changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from surgery.stacks import PLAN, Stack, train_step, trained, untouched
from torch import nn
from torch.optim import Optimizer

import diffstruct as ds
from diffstruct.surgery import Change, operate
from diffstruct.width import Axis, Fixed, Layout, Product, Sum


class ThirdParty(Optimizer):
    """An optimizer whose state surgery cannot know."""

    def __init__(self, params: Any, make: Any) -> None:
        super().__init__(params, {})
        self.make = make

    def step(self, closure: Any = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["own"] = self.make(parameter.grad)


STATES = {
    "a matrix of rows": lambda g: torch.ones(g.shape[0], g.shape[0] + 1),
    "flat": lambda g: g.flatten()[1:].clone(),
    "a list": lambda g: [g.clone(), g.clone()],
    "a dict": lambda g: {"mean": g.clone()},
}


@pytest.mark.parametrize("make", STATES.values(), ids=STATES)
def test_state_of_unknown_shape_is_refused_before_anything_changes(make):
    model, _ = trained()
    optimizer = ThirdParty(model.parameters(), make)
    train_step(model, optimizer)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    with pytest.raises(ds.StructureError, match="ThirdParty keeps state 'own'"):
        operate(model.change(PLAN), [optimizer])
    for start in (1, None):
        with pytest.raises(ds.StructureError, match="ThirdParty keeps state 'own'"):
            ds.Structure(model, optimizer, total_steps=9, start=start)
    assert {name: p.shape for name, p in model.named_parameters()} == shapes
    assert model.lower.hidden_size == 3


@pytest.mark.parametrize(
    ("keep", "add", "message"),
    [
        ((1, 0), 0, "ascending"),
        ((0, 0), 0, "ascending"),
        ((0, 3), 0, "ascending indices below 3"),
        ((-1, 0), 0, "ascending"),
        ((0,), -1, "-1 to add"),
        ((), 0, "at least one unit"),
        ((0, 1, 2), -2, "-2 to add"),
    ],
)
def test_a_change_of_units_that_do_not_exist_or_to_no_units_is_refused(keep, add, message):
    width = Stack(ds.nn.RNN, ds.nn.RNN).lower.declare_width("lower")
    with pytest.raises(ds.StructureError, match=message):
        Change(width, keep, add)


def test_a_change_made_for_a_former_size_is_refused():
    model, optimizer = trained()
    stale = model.change({"upper": ([0, 1], 2)})
    operate(stale, [optimizer])
    with untouched(ds.StructureError, model, optimizer):
        operate(stale, [optimizer])


def test_one_width_changed_twice_at_once_is_refused():
    model, optimizer = trained()
    with untouched(ds.StructureError, model, optimizer, "'lower' is changed twice"):
        operate(model.change({"lower": ([0, 1], 0)}) + model.change({"lower": ([0], 3)}), [optimizer])


def test_a_tensor_that_was_replaced_by_one_of_another_size_is_refused():
    model, optimizer = trained()
    changes = model.change(PLAN)
    model.readout.weight = nn.Parameter(torch.zeros(3, 4))
    with untouched(
        ds.StructureError, model, optimizer, r"'upper' has 2 units.*must have 2 entries, but has 4"
    ):
        operate(changes, [optimizer])


def test_a_negative_dimension_is_refused():
    readout = nn.Linear(3, 2)

    def claim(dim: int) -> Change:
        axis = Axis(3)
        slot = ds.Slot(readout, "weight", dim, ds.Role.OUTGOING, axis)
        return Change(ds.Width(str(dim), axis, (slot,)), (0, 1), 0)

    with pytest.raises(ds.StructureError):
        operate([claim(1), claim(-1)])
    assert readout.weight.shape == (2, 3)


def test_a_tensor_that_is_computed_from_others_is_refused():
    model = Stack(ds.nn.RNN, ds.nn.RNN)
    nn.utils.parametrizations.weight_norm(model.readout)
    with pytest.raises(ds.StructureError):
        ds.Structure(model, torch.optim.SGD(model.parameters()), total_steps=9, start=1)
    assert model.upper.hidden_size == model.readout.in_features == 2


def test_a_width_without_slots_or_with_slots_of_other_sizes_is_refused():
    model, axis = Stack(ds.nn.LSTM, ds.nn.RNN), Axis(3)

    def slot(module: nn.Module, name: str, dim: int, layout: Layout = axis) -> ds.Slot:
        return ds.Slot(module, name, dim, ds.Role.INCOMING, layout)

    rows, readout = (
        slot(model.lower, "weight_hh_l0", 0, Product((Fixed(4), axis))),
        slot(model.readout, "weight", 0),
    )
    with pytest.raises(ds.StructureError, match="at least one slot"):
        ds.Width("none", axis, ())
    for other, found in ((slot(model.readout, "weight", 1), 2), (slot(model.lower, "weight_hh_l0", 0), 12)):
        with pytest.raises(
            ds.StructureError, match=rf"'lower' has 3 units, so .* 3 entries, but has {found}"
        ):
            ds.Width("lower", axis, (rows, other))
    with pytest.raises(ds.StructureError, match=r"RNN.weight, which does not exist: name a parameter"):
        ds.Width("lower", axis, (rows, slot(model.upper, "weight", 0)))
    with pytest.raises(ds.StructureError, match="does not contain the width's axis"):
        ds.Width("lower", axis, (rows, slot(model.readout, "weight", 0, Axis(3))))
    with pytest.raises(ds.StructureError, match=r"weight\[dim 0: 3 x \(1 \+ 3\)\] has every unit"):
        slot(model.readout, "weight", 0, Product((axis, Sum((Fixed(1), axis)))))
    assert ds.Width("lower", axis, (rows, readout)).size == 3
