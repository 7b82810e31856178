"""TaylorImportance: its parameters, and what it says of the loss."""

import math

import pytest
import torch
from torch import nn

import diffstruct as ds


@pytest.mark.parametrize(
    "parameter", ["price", "decay", "power", "rise", "memory", "annealing", "predictions"]
)
@pytest.mark.parametrize("value", [-1e-9, 0, math.nan, math.inf])
def test_a_parameter_that_cannot_work_raises_and_is_named(parameter, value):
    if parameter == "decay" and value == 0:
        assert ds.TaylorImportance(decay=0).decay == 0  # units are judged, but nothing decays
        return
    with pytest.raises(ds.ConfigurationError, match=f"{parameter} must be a number .*{value}"):
        ds.TaylorImportance(**{parameter: value})


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ds.ConfigurationError, match="reduction must be 'mean' or 'sum'"):
        ds.TaylorImportance(reduction="none")


def test_without_example_inputs_the_number_of_predictions_must_be_given():
    rnn, readout = ds.nn.RNN(3, 4), nn.Linear(4, 2)
    rnn.feeds(readout)
    model = nn.ModuleList([rnn, readout])
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(ds.ConfigurationError, match=r"TaylorImportance\(predictions=\.\.\.\)"):
        ds.Structure(model, optimizer, total_steps=10)
    assert rnn.hidden_size == 4
    ds.Structure(model, optimizer, total_steps=10, criterion=ds.TaylorImportance(predictions=6))
    assert rnn.hidden_size == 1


def test_the_threshold_is_the_price_unless_a_rule_gives_one():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    structure = ds.Structure(
        model,
        torch.optim.Adam(model.parameters()),
        example_inputs=(torch.ones(5, 3),),
        total_steps=100,
        criterion=ds.TaylorImportance(price=0.02),
        rule={"0": ds.Rule(max_units=64), "2": ds.Rule(threshold=0.5)},
    )
    first, second = structure.training.rules["0"], structure.training.rules["2"]
    assert (first.threshold, first.max_units, first.grace_period) == (0.02, 64, 10)
    assert (second.threshold, second.max_units, second.reserve) == (0.5, 4096, 0.3)
