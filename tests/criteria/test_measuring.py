"""What is measured before units go: what that costs, how often the model is run, and what if it fails."""

import numpy as np
import pytest
import torch
from helpers.draws import drawn
from helpers.removals import RULE, STEPS, Net, assert_equal, find, observed, structured, train, weights
from torch.nn import functional as F

import diffstruct as ds
from diffstruct.criteria.removal import FORWARDS_A_STEP


def test_trying_changes_no_weight_whether_the_unit_may_go_or_not():
    model, structure, removals = observed("sixfold")
    before = weights(model)
    find(structure, removals)
    assert removals.pending
    assert_equal(model, before)


@pytest.mark.parametrize("pressure", [0.25, 1.0])
@pytest.mark.parametrize("part", [-1.0, 0.99, 1.01, 9.0])
def test_units_go_that_cost_no_more_than_their_price(part, pressure):
    _, structure, removals = observed("sixfold")
    share = structure.criterion.tracker.fair_share("one")
    assert share == pytest.approx(0.2 / 18)
    removals.group["one"] = 0.12  # of 18 units: two
    removals._cost = lambda *_: part * 2 * share * pressure
    find(structure, removals, pressure)
    assert bool(removals.pending) == (part < 1)
    if removals.pending:
        assert len(removals.pending["one"].units) == 2
        values = structure.criterion.importance(structure.widths["one"])
        gone = (values <= 0.2).nonzero()[:, 0].tolist()
        assert gone == removals.pending["one"].units.tolist()
    assert (removals.group["one"] > 0.12) == (part < 1)  # next time more are tried at once, or fewer


def test_what_a_removal_costs_is_measured():
    """By an oracle that silences the units itself."""
    model, structure, removals = observed("sixfold")
    find(structure, removals)
    removal = removals.pending["one"]
    (call,) = structure.criterion.outputs.calls
    (x,) = call.args
    target = (call.outputs.softmax(1) - call.gradient * len(x)).argmax(1)
    factors = 1.0 + removal.takeover
    factors[removal.units] = 0.0
    with torch.no_grad():
        hidden = torch.tanh(model.one(x))
        before, after = model.two(hidden), model.two(hidden * torch.from_numpy(factors))
    lost = F.cross_entropy(after, target) - F.cross_entropy(before, target)
    assert removal.cost == pytest.approx(lost.item() / structure.criterion.tracker.won, rel=1e-3, abs=1e-5)


def test_what_a_removal_costs_where_the_loss_is_another():
    model, optimizer, structure, x, _ = structured("sixfold", memory=1.0)
    y = model(x).detach() + torch.randn(len(x), 3, generator=torch.Generator().manual_seed(2)).double()
    train(model, optimizer, structure, x, y, 60, F.mse_loss)
    removals = structure.criterion.removals
    removals.credit = 100.0
    assert structure.criterion.tracker.loss.kind == "other"
    find(structure, removals)
    removal = removals.pending["one"]
    (call,) = structure.criterion.outputs.calls
    factors = 1.0 + removal.takeover
    factors[removal.units] = 0.0
    with torch.no_grad():
        hidden = torch.tanh(model.one(call.args[0]))
        before, after = model.two(hidden), model.two(hidden * torch.from_numpy(factors))
    share = (after - before).square().sum() / (before - before.mean(0)).square().sum()
    assert removal.cost == pytest.approx(share.item(), rel=1e-3)


def test_the_others_that_take_over_are_asked_what_they_can():
    """What `takeover` says against the least of the quadratic form, over all that others may do."""
    _, structure, removals = observed("sixfold")
    find(structure, removals)
    removal, tracker = removals.pending["one"], structure.criterion.tracker
    curvature, units = tracker.curvature("one"), removal.units
    ridge, others = 2 * tracker.price("one"), np.setdiff1d(np.arange(18), units)

    def form(change):
        d = np.full(18, -1.0)
        d[others] = change
        return d @ curvature @ d + ridge * change @ change

    best = removal.takeover[others]
    assert not removal.takeover[units].any()
    chance = np.random.default_rng(0)
    for _ in range(50):
        assert form(best + 0.02 * chance.standard_normal(len(others))) > form(best)


@pytest.mark.parametrize("kind", ["three", "sixfold"])
@pytest.mark.parametrize("runs", [0, 1])
def test_if_the_model_fails_while_a_unit_is_silenced_the_weights_are_as_before(kind, runs):
    model, structure, removals = observed(kind)
    structure.criterion.tracker.importance["one"][0] = 0.0
    before = weights(model)
    again = removals.outputs.again

    def failing(*call):
        model.failing = model.runs >= runs
        return again(*call)

    removals.outputs.again = failing
    with pytest.raises(RuntimeError, match="out of memory"):
        find(structure, removals)
    assert_equal(model, before)
    model.runs = 0
    with pytest.raises(RuntimeError, match="out of memory"):
        structure.finish()
    assert_equal(model, before)
    model.failing = False
    removals.outputs.again = again
    structure.finish()


@pytest.mark.parametrize("interval", [4, 20])
@pytest.mark.parametrize(("kind", "price"), [("three", 0.2), ("sixfold", 5.0)])
def test_measuring_takes_few_runs_of_the_model(kind, price, interval, monkeypatch):
    model, optimizer, structure, x, y = structured(kind, RULE, interval=interval, price=price)
    tracker = structure.criterion.tracker
    refresh = type(tracker).refresh

    def worthless(self):
        refresh(self)
        self.importance["one"][:] = 0.0  # there is always someone to be tried

    monkeypatch.setattr(type(tracker), "refresh", worthless)
    train(model, optimizer, structure, x, y, STEPS)
    assert 6 <= model.runs <= FORWARDS_A_STEP * STEPS


class LeftOut(Net):
    """What the hidden layer says is left out of every second batch, at random."""

    def __init__(self):
        super().__init__(3)
        self.heard = []

    def forward(self, x):
        heard = not self.training or bool(torch.rand(()) < 0.5)
        if not torch.is_grad_enabled():
            self.heard.append(heard)
        return self.two(heard * torch.tanh(self.one(x)))


def test_what_is_left_out_at_random_is_not_left_out_of_all_runs_that_measure():
    torch.manual_seed(0)
    model = LeftOut().double()
    x = torch.randn(4096, 4, dtype=torch.float64)
    y = drawn(model.eval()(x).detach().softmax(1), torch.Generator().manual_seed(1))
    model.train().heard.clear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    criterion = ds.TaylorImportance(price=1e6, settling=1e6)  # all units are tried
    structure = ds.Structure(
        model, optimizer, example_inputs=(x[:8],), total_steps=400, criterion=criterion, rule=RULE, interval=4
    )
    model.heard.clear()
    train(model, optimizer, structure, x, y, 300)
    assert 0.2 < sum(model.heard) / len(model.heard) < 0.8
