"""TaylorImportance: its parameters, and what it takes the loss for."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import diffstruct as ds

X = torch.randn(32, 5, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)
STILL = ds.Rule(p_add=0, p_delete=0, p_spontaneous=0, grace_period=0)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def structured(model, **options):
    """A structure that measures importance at each step, and changes nothing."""
    return ds.Structure(
        model,
        torch.optim.Adam(model.parameters()),
        example_inputs=(X,),
        total_steps=100,
        criterion=ds.TaylorImportance(**options),
        rule=STILL,
        start=None,
        interval=1,
    )


def tracker(structure):
    return structure.criterion.tracker


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


class Shaped(nn.Module):
    """A hidden layer of vectors, and an output made by a function."""

    def __init__(self, shape):
        super().__init__()
        self.one, self.two, self.shape = nn.Linear(5, 4), nn.Linear(4, 24), shape

    def forward(self, x):
        return self.shape(self.two(torch.relu(self.one(x))))


@pytest.mark.parametrize(
    ("shape", "predictions"),
    [
        pytest.param(lambda y: y, 32, id="[B, C]"),
        pytest.param(lambda y: y.view(-1, 6, 4), 32 * 6, id="[B, T, V]"),
        pytest.param(lambda y: y.view(-1, 6, 2, 2), 32 * 4, id="[B, C, H, W]"),
        pytest.param(lambda y: y.view(-1, 3, 2, 2, 2), 32 * 8, id="[B, C, D, H, W]"),
        pytest.param(lambda y: y.sum(1), 32, id="[B]"),
        pytest.param(lambda y: y.square().mean(), 1, id="[]"),
        pytest.param(lambda y: {"loss": y.mean(), "logits": y.view(-1, 6, 4)}, 32 * 6, id="dict"),
        pytest.param(lambda y: (y.argmax(1), y), 32, id="tuple"),
    ],
)
def test_predictions_are_counted_in_the_output_of_the_model(shape, predictions):
    structure = structured(Shaped(shape))
    assert tracker(structure).predictions == predictions
    assert f"over {predictions} predictions" in str(structure)
    given = structured(Shaped(shape), predictions=7)
    assert tracker(given).predictions == 7


def test_slopes_as_large_from_twice_as_many_predictions_have_twice_the_curvature():
    found = []
    for predictions in (32, 64):
        structure = structured(mlp(), predictions=predictions)
        nn.functional.cross_entropy(structure.model(X), Y).backward()
        structure.step()
        found.append((tracker(structure).fisher["0"], tracker(structure).mean_slopes["0"]))
    np.testing.assert_allclose(found[1][0], 2 * found[0][0])
    np.testing.assert_array_equal(found[1][1], found[0][1])


def test_the_sum_over_predictions_is_judged_as_their_mean_is():
    found = []
    for reduction in ("mean", "sum"):
        structure = structured(mlp(), reduction=reduction)
        for _ in range(3):
            structure.model.zero_grad()
            nn.functional.cross_entropy(structure.model(X), Y, reduction=reduction).backward()
            structure.step()
        found.append(structure.criterion.importance(structure.widths["0"]))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-8)
