"""A surgery is done as a whole or, if anything fails, not at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from surgery.stacks import PLAN, ConstantSize, Stack, draw_new, state_of, train_step, trained, untouched
from torch import nn
from torch.optim import Optimizer

import diffstruct as ds
from diffstruct.surgery import Change, operate
from diffstruct.surgery.commit import Resized


class Locked(dict):
    """State that cannot be replaced."""

    def __setitem__(self, key: Any, value: Any) -> None:
        raise OSError("locked")


def assert_trains_as_if_nothing_had_failed(model: Stack, optimizer: Optimizer) -> None:
    """The failure has no effect on later steps, and the surgery that failed can be done now."""
    twin, other = trained()
    for pair in ((model, optimizer), (twin, other)):
        train_step(*pair, 7)
        operate(pair[0].change(PLAN), [pair[1]], draw_new)
        train_step(*pair, 8)
    ours, theirs = dict(state_of(model, optimizer)), dict(state_of(twin, other))
    assert all(torch.equal(torch.as_tensor(ours[name]), torch.as_tensor(theirs[name])) for name in theirs)


def test_an_initialization_that_fails_changes_nothing():
    model, optimizer = trained()

    def fails(changes: Any, values: Any) -> None:
        for value in values.values():
            value.fill_(9.0)
        raise KeyboardInterrupt

    with untouched(KeyboardInterrupt, model, optimizer):
        operate(model.change(PLAN), [optimizer], fails)
    assert_trains_as_if_nothing_had_failed(model, optimizer)


@pytest.mark.parametrize("done", [False, True], ids=["before the swap", "after it"])
@pytest.mark.parametrize("at", [0, 5, 9])
def test_a_failure_while_tensors_are_swapped_is_undone(at, done, monkeypatch):
    model, optimizer = trained()
    swap, calls = Resized.swap, []

    def fails_once(self: Resized) -> None:
        calls.append(self)
        if done or len(calls) != at + 1:
            swap(self)
        if len(calls) == at + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Resized, "swap", fails_once)
    with untouched(KeyboardInterrupt, model, optimizer):
        operate(model.change(PLAN), [optimizer])
    assert_trains_as_if_nothing_had_failed(model, optimizer)


def test_a_state_that_cannot_be_replaced_undoes_the_surgery():
    model, optimizer = trained()
    last = model.readout.weight
    optimizer.state[last] = Locked(optimizer.state[last])
    with untouched(OSError, model, optimizer, "locked"):
        operate(model.change(PLAN), [optimizer])
    optimizer.state[last] = dict(optimizer.state[last])
    assert_trains_as_if_nothing_had_failed(model, optimizer)


def test_a_size_that_cannot_be_set_undoes_the_surgery():
    model, optimizer = trained()
    model.readout.__class__ = ConstantSize
    with untouched(AttributeError, model, optimizer, "cannot be set"):
        operate(model.change(PLAN), [optimizer])
    model.readout.__class__ = nn.Linear
    assert_trains_as_if_nothing_had_failed(model, optimizer)


def test_no_memory_for_the_weights_of_an_lstm_in_one_piece_undoes_the_surgery(monkeypatch):
    class Recurrent(nn.Sequential):
        def forward(self, x):
            return self[1](self[0](x)[0])

    model = Recurrent(nn.LSTM(2, 4), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters())
    width = next(iter(ds.find_widths(model, (torch.ones(3, 5, 2),)).widths.values()))

    def fails(self: nn.RNNBase) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", fails)
    with untouched(torch.OutOfMemoryError, model, optimizer, "out of memory"):
        operate([Change(width, (0, 2), 1)], [optimizer])
    assert width.size == model[0].hidden_size == 4


def test_a_structure_can_step_again_after_its_surgery_has_failed():
    model, optimizer = trained()
    always = ds.Rule(p_add=1.0, p_spontaneous=1.0, p_delete=0.0)
    criterion = ds.OutgoingNorm(ds.L1Price(0.0))
    structure = ds.Structure(model, optimizer, total_steps=9, criterion=criterion, rule=always, start=None)
    state = torch.ones(1, 2, 3)
    model.readout.__class__ = ConstantSize
    with untouched(AttributeError, model, optimizer, "cannot be set"):
        structure.step()
    assert structure.history.events == []
    assert structure.carry(state, "lower") is state
    model.readout.__class__ = nn.Linear
    structure.step()
    carried = structure.carry(state, "lower")
    assert carried.shape[-1] == model.lower.hidden_size > 3
    with torch.no_grad():
        model.readout.weight[0, 0] = torch.nan
    with pytest.raises(ds.DivergenceError):
        structure.step()
    assert structure.carry(carried, "lower") is carried
