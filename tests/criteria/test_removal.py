"""Removal: nobody goes whom the network turns out to need, and the others take over."""

import copy

import pytest
import torch
from helpers.removals import (
    BATCH,
    EAGER,
    RULE,
    STEPS,
    assert_equal,
    find,
    observed,
    structured,
    train,
    weights,
)
from torch import nn
from torch.nn import functional as F

import diffstruct as ds
from diffstruct.criteria.removal import AT_THE_END


@pytest.mark.slow
def test_units_that_have_doubles_go_and_the_doubles_take_over():
    model, optimizer, structure, x, y = structured("sixfold", EAGER, interval=4)
    whole, before = copy.deepcopy(model), F.cross_entropy(model(x), y).item()
    train(model, optimizer, structure, x, y, STEPS)
    gone, won = 18 - structure.widths["one"].size, structure.criterion.tracker.won
    assert gone >= 3
    lost = F.cross_entropy(model(x), y).item() - before
    assert lost < 0.2 * gone / 18 * won  # the price
    with torch.no_grad():  # the same incoming weights without those who took over
        stay = [(whole.one.weight == row).all(1).nonzero()[:, 0].tolist() for row in model.one.weight]
        assert all(len(doubles) == 6 for doubles in stay)
        model.two.weight.copy_(whole.two.weight[:, [doubles[0] for doubles in stay]])
    assert lost < 0.5 * (F.cross_entropy(model(x), y).item() - before)
    assert all(event.cost < 0.05 for event in structure.history.events)
    assert model.two.weight.shape == (3, 18 - gone)


def test_without_doubles_all_stay():
    model, optimizer, structure, x, y = structured("three", EAGER, interval=4)
    before = weights(model)
    train(model, optimizer, structure, x, y, STEPS)
    assert structure.widths["one"].size == 3
    assert_equal(model, before)


def test_copies_that_follow_take_over_as_well():
    model, optimizer, structure, x, y = structured("sixfold", EAGER, interval=4)
    twin = copy.deepcopy(model)
    structure.follow(twin)
    train(model, optimizer, structure, x, y, STEPS)
    assert structure.history.removed() >= 3
    torch.testing.assert_close(twin(x), model(x))


@pytest.mark.parametrize("unit", [0, 1, 2])
def test_a_unit_that_is_underestimated_is_not_removed(unit):
    model, structure, removals = observed()
    before = weights(model)
    structure.criterion.tracker.importance["one"][unit] = 0.0
    find(structure, removals)
    assert not removals.pending
    assert removals.off["one"] > 2
    assert model.runs == 2
    assert_equal(model, before)
    values = structure.criterion.importance(structure.widths["one"])
    assert (values > structure.training.threshold("one")).all()


def test_units_that_are_always_underestimated_stay_through_the_run(monkeypatch):
    model, optimizer, structure, x, y = structured("three", EAGER, interval=4)
    tracker = structure.criterion.tracker
    refresh = type(tracker).refresh

    def wrong(self):
        refresh(self)
        self.importance["one"][:] = 0.0

    monkeypatch.setattr(type(tracker), "refresh", wrong)
    before = weights(model)
    train(model, optimizer, structure, x, y, STEPS)
    assert structure.widths["one"].size == 3
    assert model.runs > 4
    structure.finish()
    assert structure.widths["one"].size == 3
    assert_equal(model, before)


def test_at_the_end_nobody_is_removed_without_a_batch():
    model, optimizer, structure, x, y = structured("sixfold", RULE)
    structure.finish()  # before the first step
    assert model.one.out_features == 18
    model, optimizer, structure, x, y = structured("sixfold", RULE)
    train(model, optimizer, structure, x, y, 60)
    structure.criterion.outputs.clear()
    before = weights(model)
    structure.finish()
    assert_equal(model, before)


@pytest.mark.parametrize(("least", "left"), [(None, 3), (16, 16)])
def test_at_the_end_those_go_that_cost_hardly_anything(least, left):
    rule = ds.Rule(p_add=0, p_delete=0, p_spontaneous=0, grace_period=0, min_units=least)
    model, optimizer, structure, x, y = structured("sixfold", rule)
    train(model, optimizer, structure, x, y, 60)
    won, share = structure.criterion.tracker.won, structure.criterion.tracker.fair_share("one")
    (call,) = structure.criterion.outputs.calls
    target = (call.outputs.softmax(1) - call.gradient * BATCH).argmax(1)
    before = F.cross_entropy(model(call.args[0]), target).item()
    structure.finish()
    gone = 18 - model.one.out_features
    assert left <= model.one.out_features < 18
    lost = (F.cross_entropy(model(call.args[0]), target).item() - before) / won
    assert lost <= AT_THE_END * gone * share
    (event,) = structure.history.events
    assert event.cost == pytest.approx(lost, abs=1e-5)
    assert len(event.removed) == gone


def test_no_width_goes_below_its_least_size():
    rule = ds.Rule(p_add=0, p_delete=1, p_spontaneous=0, grace_period=1, min_units=16)
    model, optimizer, structure, x, y = structured("sixfold", rule, interval=4)
    train(model, optimizer, structure, x, y, STEPS)
    assert structure.widths["one"].size == 16
    structure.finish()
    assert model.one.out_features == 16


def test_without_pressure_nothing_is_tried():
    model, structure, removals = observed("sixfold")
    off = dict(removals.off)
    find(structure, removals, pressure=0.0)
    assert not removals.pending
    assert model.runs == 0
    assert removals.off == off


def test_what_the_estimate_was_off_by_is_forgotten_in_time():
    _, structure, removals = observed("three")
    removals.off["one"] = 50.0
    for _ in range(300):
        find(structure, removals)
        removals.credit = 0.0  # nothing is measured anew
    assert 1.0 < removals.off["one"] < 1.05


def test_units_in_their_grace_period_are_not_tried():
    rule = ds.Rule(p_add=0, p_delete=0, p_spontaneous=0, grace_period=61)
    model, structure, removals = observed("sixfold", rule)
    find(structure, removals)
    assert not removals.pending
    assert model.runs == 0


@pytest.mark.slow
def test_where_the_outputs_are_not_seen_the_estimate_decides():
    torch.manual_seed(0)
    rnn, readout = ds.nn.RNN(3, 6), nn.Linear(6, 2)
    rnn.feeds(readout)
    model = nn.ModuleList([rnn, readout])
    with torch.no_grad():
        readout.weight[:, 2:4] = 0
        rnn.weight_hh_l0[:, 2:4] = 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    structure = ds.Structure(
        model,
        optimizer,
        total_steps=40,
        criterion=ds.TaylorImportance(settling=1e6),
        rule=EAGER,
        interval=1,
    )
    chance = torch.Generator().manual_seed(0)
    for _ in range(30):
        optimizer.zero_grad()
        x = torch.randn(5, 8, 3, generator=chance)
        F.mse_loss(readout(rnn(x)[0]), torch.randn(5, 8, 2, generator=chance)).backward()
        optimizer.step()
        structure.step()
    (first, *_) = structure.history.events
    assert set(first.removed) <= {2, 3}
    assert structure.history.removed() >= 2
    assert first.cost is None
