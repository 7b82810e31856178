"""Removal: nobody goes whom the network turns out to need, and the others take over."""

import copy

import numpy as np
import pytest
import torch
from helpers.draws import drawn
from torch import nn
from torch.nn import functional as F

import diffstruct as ds
from diffstruct.criteria.removal import AT_THE_END, FORWARDS_A_STEP

RULE = ds.Rule(p_add=0, p_delete=0, p_spontaneous=0, grace_period=0)
EAGER = ds.Rule(p_add=0, p_delete=1, p_spontaneous=0, grace_period=1)
STEPS, BATCH = 440, 256


class Net(nn.Module):
    """A hidden layer; it counts its runs, and fails when told to."""

    def __init__(self, hidden):
        super().__init__()
        self.one, self.two = nn.Linear(4, hidden), nn.Linear(hidden, 3)
        self.runs, self.failing = 0, False

    def forward(self, x):
        if not torch.is_grad_enabled():
            self.runs += 1
            if self.failing:
                raise RuntimeError("out of memory")
        return self.two(torch.tanh(self.one(x)))


def net(kind):
    """Three different units (`"three"`), or each of them six times (`"sixfold"`)."""
    torch.manual_seed(3)
    model = Net(3).double()
    with torch.no_grad():
        model.one.weight.copy_(torch.eye(3, 4) * 1.5)
        model.two.weight.mul_(8)
    if kind == "sixfold":
        wide = Net(18).double()
        with torch.no_grad():
            wide.one.weight.copy_(model.one.weight.repeat(6, 1))
            wide.one.bias.copy_(model.one.bias.repeat(6))
            wide.two.weight.copy_(model.two.weight.repeat(1, 6) / 6)
            wide.two.bias.copy_(model.two.bias)
        return wide
    return model


def structured(kind="three", rule=RULE, steps=STEPS, interval=1, **options):
    """A model that has learned all that it can: its targets are drawn from its outputs. Nothing moves."""
    model = net(kind)
    chance = torch.Generator().manual_seed(1)
    x = torch.randn(8192, 4, generator=chance, dtype=torch.float64)
    y = drawn(model(x).detach().softmax(1), chance)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    settings = {"price": 0.2, "memory": 1.0, "settling": 1e6, **options}
    structure = ds.Structure(
        model,
        optimizer,
        example_inputs=(x[:8],),
        total_steps=steps,
        criterion=ds.TaylorImportance(**settings),
        rule=rule,
        interval=interval,
    )
    model.runs = 0
    return model, optimizer, structure, x, y


def train(model, optimizer, structure, x, y, steps, loss=F.cross_entropy):
    for step in range(steps):
        rows = slice(step * BATCH % len(x), step * BATCH % len(x) + BATCH)
        optimizer.zero_grad()
        loss(model(x[rows]), y[rows]).backward()
        optimizer.step()
        structure.step()


def observed(kind="three", rule=RULE, **options):
    """After 60 observations; nothing was tried, and the next `find` may try what it likes."""
    model, optimizer, structure, x, y = structured(kind, rule, **options)
    train(model, optimizer, structure, x, y, 60)
    removals = structure.criterion.removals
    assert not removals.pending
    assert model.runs == 0
    removals.credit = 100.0
    return model, structure, removals


def find(structure, removals, pressure=1.0):
    ages = {name: state.ages for name, state in structure.states.items()}
    removals.find(structure.steps, ages, pressure)


def weights(model):
    return copy.deepcopy(model.state_dict())


def assert_equal(model, before):
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


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
