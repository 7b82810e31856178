"""A budget: the way there, how many units may go, and what the finished model costs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import diffstruct as ds
from diffstruct.criteria.budget import BEGIN, END, USED, BudgetPath

COSTS = st.floats(1, 1e6)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))


def trained(budget, steps=300, model=None, **options):
    """A model that has learned a task within a budget, before and after `finish`."""
    model = model or mlp()
    x = torch.randn(512, 6, generator=torch.Generator().manual_seed(1))
    y = (x[:, :3] * x[:, 3:]).argmax(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    structure = ds.Structure(
        model,
        optimizer,
        example_inputs=(x[:4],),
        total_steps=steps,
        budget=None if budget is None else ds.Budget(parameters=budget),
        **options,
    )
    costs = []
    for step in range(steps):
        rows = slice(step * 32 % 512, step * 32 % 512 + 32)
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        structure.step()
        costs.append(parameters(model))
    before = [*costs]
    return structure.finish(), structure, before


@settings(max_examples=100)
@given(budget=COSTS, begin=COSTS, total=st.integers(1, 10_000), step=st.integers(0, 12_000))
def test_the_way_goes_from_where_it_begins_to_the_budget_by_equal_factors(budget, begin, total, step):
    path = BudgetPath(budget, begin, total)
    end = min(budget, begin)
    done = min(max(step / total, BEGIN), END)
    expected = math.exp((math.log(begin) * (END - done) + math.log(end) * (done - BEGIN)) / (END - BEGIN))
    assert path.allowed(step) == pytest.approx(expected)
    assert path.allowed(step + 1) <= path.allowed(step) * (1 + 1e-12)
    assert path.allowed(0) == begin
    assert path.allowed(total) == pytest.approx(end)


@settings(max_examples=100)
@given(budget=COSTS, cost=COSTS, unit=st.floats(1, 1e4))
def test_units_go_only_while_the_budget_is_still_used(budget, cost, unit):
    room = BudgetPath(budget, cost, 100).room(cost, unit)
    assert room >= 0
    slack = 1e-9 * (cost + budget)
    if room:
        assert cost - room * unit >= USED * budget - slack
    if cost > USED * budget:
        assert cost - (room + 1) * unit <= USED * budget + slack  # one more would be too many


@pytest.mark.parametrize("value", [0, -3, 10.0, "10", None])
def test_a_budget_that_is_no_count_raises(value):
    with pytest.raises(ds.ConfigurationError, match="parameters must be a whole number above 0"):
        ds.Budget(parameters=value)


@pytest.mark.parametrize("criterion", [ds.OutgoingNorm(), ds.Multipliers()])
def test_criteria_that_keep_no_budget_refuse_one(criterion):
    model = mlp()
    with pytest.raises(ds.ConfigurationError, match=f"{type(criterion).__name__} does not keep budgets"):
        ds.Structure(
            model,
            torch.optim.Adam(model.parameters()),
            example_inputs=(torch.ones(4, 6),),
            total_steps=100,
            criterion=criterion,
            budget=ds.Budget(parameters=100),
        )
    assert [model[0].out_features, model[2].out_features] == [24, 16]


@pytest.mark.parametrize("budget", [450, 300, 120])
def test_the_finished_model_costs_at_most_the_budget_and_uses_it(budget):
    plain, structure, costs = trained(budget)
    assert parameters(plain) == structure.criterion.tracker.cost_now()
    assert 0.9 * budget <= parameters(plain) <= budget
    assert costs[0] == parameters(mlp())
    assert costs[int(BEGIN * 300) - 1] == costs[0]
    path = BudgetPath(budget, costs[0], 300)
    interval = structure.training.interval
    for step in range(interval, 301, interval):
        assert costs[step - 1] <= path.allowed(step)


def test_the_cost_falls_evenly():
    """Where all units are worth their price, the budget alone makes them go: never many at once."""
    _, structure, costs = trained(200, criterion=ds.TaylorImportance(price=1e-9))
    path = BudgetPath(200, costs[0], 300)
    largest = 16 + 7 + 1  # of the cost of one unit, in and out
    interval = structure.training.interval
    for step in range(interval, 301, interval):
        assert path.allowed(step) - largest <= costs[step - 1] <= path.allowed(step)
    assert structure.history.removed() > 20


def test_a_budget_above_what_the_model_costs_leaves_it_alone():
    plain, structure, _ = trained(parameters(mlp()) + 1)
    assert parameters(plain) == parameters(mlp())
    assert not structure.history.events


def test_no_width_goes_below_its_least_size_for_a_budget():
    with pytest.warns(ds.StructureWarning, match="more than the budget of 40"):
        plain, _, _ = trained(40, rule=ds.Rule(min_units=5))
    assert [plain[0].out_features, plain[2].out_features] == [5, 5]


def test_a_budget_counts_what_is_not_learned_too():
    model = mlp()
    plain, _, _ = trained(300, model=model, exclude=("2",))
    assert plain[2].out_features == 16
    assert 270 <= parameters(plain) <= 300


def test_a_budget_from_one_unit_ends_there_as_well():
    plain, structure, _ = trained(300, start=1)
    assert structure.history.added() > 0
    assert 270 <= parameters(plain) <= 300


def test_another_cost_stands_in_the_place_of_the_parameters():
    """Here units of the second width cost ten times as much."""
    cost = lambda sizes: sizes["0"] + 10.0 * sizes["2"]  # noqa: E731
    plain, _, _ = trained(100, criterion=ds.TaylorImportance(cost=cost))
    found = plain[0].out_features + 10 * plain[2].out_features
    assert 90 <= found <= 100
