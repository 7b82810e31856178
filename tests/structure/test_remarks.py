"""What the user is told at the end of a run, and when nothing is."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import diffstruct as ds

X = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)


def mlp(zero=False):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3))
    if zero:
        with torch.no_grad():
            for parameter in model[2].parameters():
                parameter.zero_()
    return model


def run(made, total=100, steps=None, model=None, lr=1e-2, **options):
    """Train, finish, and return the warnings of `finish`, and where they point to."""
    model = model or mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    structure = ds.Structure(
        model, optimizer, example_inputs=(X[:4],), total_steps=total, interval=1, **options
    )
    for step in range(made):
        rows = slice(step * 32 % 256, step * 32 % 256 + 32)
        optimizer.zero_grad()
        F.cross_entropy(model(X[rows]), Y[rows]).backward()
        optimizer.step()
        structure.step()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        structure.finish()
    assert all(each.category is ds.StructureWarning for each in found)
    assert all(each.filename == __file__ for each in found)
    return [str(each.message) for each in found], structure


def test_a_run_that_went_as_planned_is_not_remarked_on():
    messages, structure = run(100)
    assert structure.criterion.tracker.won > 0.1
    assert messages == []


@pytest.mark.parametrize("criterion", [ds.OutgoingNorm(), ds.TaylorImportance()])
@pytest.mark.parametrize(("made", "told"), [(50, True), (98, True), (99, False), (101, False), (102, True)])
def test_a_run_of_another_length_than_announced(made, told, criterion):
    messages, _ = run(made, criterion=criterion, rule=ds.Rule(p_add=0, p_delete=0, p_spontaneous=0))
    assert len(messages) == told
    if told:
        assert f"structure.finish() after {made} of total_steps=100 steps" in messages[0]


def test_it_is_a_warning_that_can_be_made_an_error():
    model = mlp()
    structure = ds.Structure(
        model, torch.optim.Adam(model.parameters()), example_inputs=(X[:4],), total_steps=100
    )
    with pytest.warns(ds.StructureWarning, match=r"finish\(\) after 0 of total_steps=100"):
        structure.finish()
    model = mlp()
    structure = ds.Structure(
        model, torch.optim.Adam(model.parameters()), example_inputs=(X[:4],), total_steps=100
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ds.StructureWarning):
            structure.finish()


@pytest.mark.parametrize("least", [1, 4])
def test_all_widths_at_their_minimum(least):
    rule = ds.Rule(p_add=0, p_delete=0, p_spontaneous=0, min_units=least)
    messages, structure = run(100, rule=rule, start=least, criterion=ds.OutgoingNorm())
    assert structure.history.removed() == 0
    assert len(messages) == 1
    assert "all widths are at their minimum" in messages[0]


def test_a_width_that_cannot_be_smaller_or_larger_is_not_at_its_minimum():
    rule = ds.Rule(p_add=0, p_delete=0, p_spontaneous=0, min_units=12, max_units=12)
    messages, _ = run(100, rule=rule)
    assert messages == []


def test_one_width_at_its_minimum_and_one_that_is_not():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    rule = ds.Rule(p_add=0, p_delete=0, p_spontaneous=0)
    start = {"0": 1, "2": 2}
    messages, _ = run(100, model=model, rule=rule, start=start, criterion=ds.OutgoingNorm())
    assert messages == []


def test_a_width_that_reached_its_largest_size():
    rule = ds.Rule(max_units=14, p_add=1.0, p_delete=0, p_spontaneous=0)
    messages, structure = run(100, rule=rule)
    assert structure.history.added() == 2
    assert messages == ["the widths ['0'] have reached max_units, and may want to be larger: raise it"]


def test_a_width_that_cannot_grow_is_not_told_to_have_reached_its_largest_size():
    messages, structure = run(100)  # without max_units, the size that the model came with
    assert structure.training.rules["0"].max_units == 12
    assert messages == []


def test_a_network_that_has_won_nothing():
    messages, structure = run(100, model=mlp(zero=True), lr=0.0)
    assert structure.criterion.tracker.won < 1e-9
    assert len(messages) == 1
    assert "the network has won nothing over a constant output" in messages[0]
    assert structure.widths["0"].size == 12


def test_without_a_step_nothing_is_said_of_what_was_won():
    messages, _ = run(0)
    assert len(messages) == 1
    assert "after 0 of" in messages[0]


def test_several_remarks_come_one_by_one():
    rule = ds.Rule(max_units=12, p_add=1.0, p_delete=0, p_spontaneous=0)
    messages, _ = run(50, model=mlp(zero=True), lr=0.0, rule=rule)
    assert len(messages) == 3
    assert ["finish()" in messages[0], "max_units" in messages[1], "nothing" in messages[2]] == [True] * 3


def test_a_budget_that_cannot_be_met_is_warned_of():
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    for parameters, warned in ((2, True), (10_000, False)):
        model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        budget = ds.Budget(parameters=parameters)
        structure = ds.Structure(model, optimizer, example_inputs=(x,), total_steps=120, budget=budget)
        for _ in range(120):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
            optimizer.step()
            structure.step()
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            structure.finish()
        assert any("more than the budget" in str(each.message) for each in found) == warned
