"""A budget: the way there, how many units may go, and what the finished model costs."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import diffstruct as ds
from diffstruct.criteria.budget import BEGIN, END, USED, BudgetPath
from diffstruct.width.cost import unit_costs

COSTS, BUDGETS = st.floats(1, 1e6), st.integers(1, 10**6)


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
        budget=ds.Budget(parameters=budget) if isinstance(budget, int) else budget,
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


def path_of(cost, total=100, /, **budget):
    """The way of a model that costs this much at one unit of its only width, `a`."""
    return BudgetPath(
        ds.Budget(**budget), dict.fromkeys(budget, lambda sizes: cost * sizes["a"]), {"a": 1}, total
    )


@settings(max_examples=100)
@given(budget=BUDGETS, begin=COSTS, total=st.integers(1, 10_000), step=st.integers(0, 12_000))
def test_the_way_goes_from_where_it_begins_to_the_budget_by_equal_factors(budget, begin, total, step):
    path = path_of(begin, total, parameters=budget)
    first = max(begin / budget, 1.0)
    done = min(max(step / total, BEGIN), END)
    assert path.allowed(step) == pytest.approx(math.exp(math.log(first) * (END - done) / (END - BEGIN)))
    assert path.allowed(step + 1) <= path.allowed(step) * (1 + 1e-12)
    assert path.allowed(0) == first
    assert path.allowed(total) == 1


@settings(max_examples=100)
@given(budget=BUDGETS, size=st.integers(1, 1000), unit=st.floats(1, 1e4), other=st.integers(1, 10**6))
def test_units_go_only_while_the_budget_is_still_used(budget, size, unit, other):
    """Of several budgets, the tightest: here that of the multiply-adds, or of the parameters."""
    for one in (ds.Budget(parameters=budget), ds.Budget(parameters=budget, flops=other)):
        costs = {"parameters": lambda sizes: 5 + unit * sizes["a"], "flops": lambda sizes: sizes["a"] ** 2}
        path = BudgetPath(one, costs, {"a": size}, 100)
        room = path.room({"a": size}, "a")
        assert room >= 0
        if room and room < size:
            assert path.spent({"a": size - room}) >= USED * (1 - 1e-9)
        if one.flops is None and path.spent({"a": size}) > USED:
            assert path.spent({"a": size - room - 1}) <= USED * (1 + 1e-9)  # one more would be too many


@settings(max_examples=100)
@given(budget=BUDGETS, other=BUDGETS, cost=COSTS)
def test_the_tightest_budget_is_what_is_spent_and_units_are_priced_by(budget, other, cost):
    path = path_of(cost, parameters=budget, flops=other)
    spent = max(cost / budget, cost / other)
    assert path.spent({"a": 1}) == spent
    assert spent * (1 - 1e-12) <= path.price({"a": 1}) <= 2 ** (1 / 8) * spent * (1 + 1e-12)
    assert bool(path.missed({"a": 1})) == (spent > 1)
    alone = path_of(cost, parameters=budget)
    assert alone.price({"a": 1}) == pytest.approx(cost / budget)


def test_where_two_budgets_are_as_tight_units_cost_what_they_take_of_either():
    """Were it the larger part alone, no unit would save anything here."""
    costs = {"parameters": lambda sizes: sizes["a"], "flops": lambda sizes: sizes["b"]}
    sizes = {"a": 100, "b": 100}
    path = BudgetPath(ds.Budget(parameters=50, flops=50), costs, sizes, 100)
    saved = unit_costs(path.price, sizes)
    assert saved["a"] == saved["b"] > 0
    saved = unit_costs(path.price, {"a": 100, "b": 50})
    assert 0 < 50 * saved["b"] < 0.01 * 100 * saved["a"]


def test_a_model_through_whose_one_unit_all_goes_costs_nothing_without_it():
    path = BudgetPath(ds.Budget(flops=50), {"flops": lambda sizes: 30.0 * sizes["a"]}, {"a": 4}, 100)
    assert path.price({"a": 0}) == 0.0
    assert path.price({"a": 1}) == pytest.approx(0.6)


def test_what_is_missed_is_told_in_the_units_of_each_budget():
    path = path_of(2500, parameters=2000, flops=1000)
    assert path.missed({"a": 1}) == [
        "the finished model has 2,500 parameters, more than the budget of 2,000",
        "the finished model takes 2,500 multiply-adds for an example, more than the budget of 1,000",
    ]
    assert (
        path_of(2500, parameters=2500, flops=2400).missed({"a": 1})[0].startswith("the finished model takes")
    )
    assert not path_of(2500, parameters=2500).missed({"a": 1})


@pytest.mark.parametrize("name", ["parameters", "flops"])
@pytest.mark.parametrize("value", [0, -3, 10.0, "10", True])
def test_a_budget_that_is_no_count_raises(name, value):
    with pytest.raises(ds.ConfigurationError, match=f"{name} must be a whole number above 0"):
        ds.Budget(**{name: value})


def test_a_budget_of_nothing_raises():
    with pytest.raises(ds.ConfigurationError, match="give parameters or flops, or both"):
        ds.Budget()


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
    assert 0.9 * budget <= parameters(plain) <= budget
    assert costs[0] == parameters(mlp())
    assert costs[int(BEGIN * 300) - 1] == costs[0]
    path = path_of(costs[0], 300, parameters=budget)
    interval = structure.training.interval
    for step in range(interval, 301, interval):
        assert costs[step - 1] / budget <= path.allowed(step)


@pytest.mark.parametrize("budget", [450, 300, 200])
@pytest.mark.parametrize("multiple_of", [4, 8])
def test_a_budget_is_met_in_multiples(budget, multiple_of):
    plain, _, _ = trained(budget, multiple_of=multiple_of)
    sizes = [plain[0].out_features, plain[2].out_features]
    assert all(size % multiple_of == 0 for size in sizes)
    assert parameters(plain) <= budget
    assert parameters(plain) + multiple_of * max(6 + 1 + sizes[1], sizes[0] + 1 + 3) > budget


def test_the_cost_falls_evenly():
    """Where all units are worth their price, the budget alone makes them go: never many at once."""
    _, structure, costs = trained(200, criterion=ds.TaylorImportance(price=1e-9))
    path = path_of(costs[0], 300, parameters=200)
    largest = 16 + 7 + 1  # of the cost of one unit, in and out
    interval = structure.training.interval
    for step in range(interval, 301, interval):
        assert 200 * path.allowed(step) - largest <= costs[step - 1] <= 200 * path.allowed(step)
    assert structure.history.removed() >= 15


def test_a_budget_above_what_the_model_costs_leaves_it_alone():
    plain, structure, _ = trained(parameters(mlp()) + 1)
    assert parameters(plain) == parameters(mlp())
    assert not structure.history.events


def test_a_model_may_grow_up_to_its_budget():
    small, budget = parameters(mlp()), 2 * parameters(mlp())
    plain, _, costs = trained(budget, rule=ds.Rule(max_units=200, p_add=1.0, grace_period=0.05))
    assert small < max(costs)
    assert parameters(plain) <= budget


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


def multiply_adds(model):
    return model[0].weight.numel() + model[2].weight.numel() + model[4].weight.numel()


def test_multiply_adds_are_budgeted():
    plain, _, _ = trained(ds.Budget(flops=300))
    assert 270 <= multiply_adds(plain) <= 300


@pytest.mark.parametrize("budget", [(450, 250), (300, 400)])
def test_of_two_budgets_both_are_met_and_the_tighter_one_is_used(budget):
    plain, _, _ = trained(ds.Budget(parameters=budget[0], flops=budget[1]))
    used = parameters(plain) / budget[0], multiply_adds(plain) / budget[1]
    assert 0.9 <= max(used) <= 1


def test_numbers_of_numpy_are_numbers():
    assert ds.Budget(parameters=np.int64(40), flops=np.int32(30)) == ds.Budget(parameters=40, flops=30)
    with pytest.raises(ds.ConfigurationError, match="flops must be a whole number above 0"):
        ds.Budget(flops=np.int64(0))


def test_each_budget_that_is_not_met_is_warned_of():
    with pytest.warns(ds.StructureWarning) as warned:
        trained(ds.Budget(parameters=40, flops=30), rule=ds.Rule(min_units=5))
    said = "".join(str(warning.message) for warning in warned)
    assert "has 83 parameters, more than the budget of 40" in said
    assert "takes 70 multiply-adds for an example, more than the budget of 30" in said


def test_another_cost_prices_units_while_the_budget_stays_what_it_is():
    """Where units of the first width seem to cost nothing, those of the second go."""
    cost = lambda sizes: 1e-6 * sizes["0"] + sizes["2"]  # noqa: E731
    plain, structure, _ = trained(300, criterion=ds.TaylorImportance(cost=cost))
    assert structure.criterion.tracker.cost is cost
    assert 270 <= parameters(plain) <= 300
    assert plain[0].out_features > plain[2].out_features


def test_a_structure_with_budgets_can_be_copied_and_its_way_stored():
    _, structure, _ = trained(ds.Budget(parameters=300, flops=250), steps=60)
    path, sizes = structure.criterion.removals.budget, {"0": 5, "2": 3}
    for other in (copy.deepcopy(path), pickle.loads(pickle.dumps(path))):
        assert other.spent(sizes) == path.spent(sizes)
        assert other.price(sizes) == path.price(sizes)


def test_multiply_adds_of_widths_that_were_declared_cannot_be_budgeted():
    model = nn.Sequential(ds.nn.GRU(3, 4), nn.Linear(4, 2))
    model[0].feeds(model[1])
    with pytest.raises(ds.StructureError, match="without example inputs"):
        ds.Structure(model, torch.optim.Adam(model.parameters()), total_steps=100, budget=ds.Budget(flops=10))
