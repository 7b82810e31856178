"""TaylorImportance: its parameters, and whole runs from the first step to the plain model."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import diffstruct as ds

X = torch.randn(256, 5, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)
STILL = ds.Rule(p_add=0, p_delete=0, p_spontaneous=0, grace_period=0)


def mlp(one=24, two=16):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, one), nn.ReLU(), nn.Linear(one, two), nn.ReLU(), nn.Linear(two, 3))


def structured(model=None, optimizer=None, total_steps=300, **options):
    model = model or mlp()
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=5e-3)
    structure = ds.Structure(model, optimizer, example_inputs=(X[:4],), total_steps=total_steps, **options)
    return model, optimizer, structure


def train(model, optimizer, structure, steps, loss=F.cross_entropy):
    sizes = []
    for step in range(steps):
        rows = slice(step * 32 % 256, step * 32 % 256 + 32)
        optimizer.zero_grad()
        loss(model(X[rows]), Y[rows]).backward()
        optimizer.step()
        structure.step()
        sizes.append({name: width.size for name, width in structure.widths.items()})
    return sizes


@pytest.mark.parametrize("parameter", ["price", "decay", "power", "rise", "memory", "settling", "annealing"])
@pytest.mark.parametrize("value", [-1e-9, 0, math.nan, math.inf, "a", None])
def test_a_parameter_that_cannot_work_raises_and_is_named(parameter, value):
    if parameter == "decay" and value == 0:
        assert ds.TaylorImportance(decay=0).decay == 0  # units are judged, but nothing decays
        return
    with pytest.raises(ds.ConfigurationError, match=f"{parameter} must be a number .*{value}"):
        ds.TaylorImportance(**{parameter: value})


def test_the_threshold_is_the_price_unless_a_rule_gives_one():
    _, _, structure = structured(
        criterion=ds.TaylorImportance(price=0.02),
        rule={"0": ds.Rule(max_units=64), "2": ds.Rule(threshold=0.5)},
        total_steps=100,
        interval=1,
    )
    first, second = structure.training.rules["0"], structure.training.rules["2"]
    assert (first.threshold, first.max_units, first.grace_period) == (0.02, 64, 10)
    assert (second.threshold, second.max_units, second.reserve) == (0.5, 16, 0.3)
    assert first.p_add > 0
    assert second.p_add == second.p_spontaneous == 0  # without max_units a width only shrinks


@pytest.mark.parametrize(
    ("steps", "interval"),
    [(1, 1), (29, 1), (60, 2), (300, 10), (960, 32), (10_000, 32), (80_000, 32), (100_000, 40)],
)
def test_there_are_from_30_to_2500_decisions_and_32_steps_between_them_where_that_fits(steps, interval):
    assert ds.TaylorImportance().default_interval(steps, traced=True) == interval


def test_a_grace_period_that_leaves_no_time_is_refused_only_where_units_could_be_added():
    long = ds.Rule(max_units=64, grace_period=0.95)
    with pytest.raises(ds.ConfigurationError, match="leave no time in which units could be added"):
        structured(rule=long)
    structured(rule=ds.Rule(grace_period=0.95))


def test_by_default_widths_begin_at_their_own_sizes_and_shrink():
    model, optimizer, structure = structured(total_steps=900)
    assert [model[0].out_features, model[2].out_features] == [24, 16]
    sizes = train(model, optimizer, structure, 900)
    for earlier, later in itertools.pairwise(sizes):
        assert all(later[name] <= earlier[name] for name in later)
    assert structure.history.added() == 0
    assert structure.history.removed() > 2
    assert all(event.cost is not None for event in structure.history.events)
    assert min(event.step for event in structure.history.events) > 90  # grace, and settling
    assert structure.finish() is model
    accuracy = (model(X).argmax(1) == Y).double().mean()
    assert accuracy > 0.85


def test_nothing_is_removed_after_the_middle_of_the_annealing():
    model, optimizer, structure = structured(
        criterion=ds.TaylorImportance(annealing=0.8, price=1.0, settling=0.3)
    )
    sizes = train(model, optimizer, structure, 300)
    assert structure.history.removed() > 0
    assert sizes[180] == sizes[-1]


@pytest.mark.parametrize("start", [1, 3])
def test_from_few_units_widths_are_back_at_their_own_sizes_after_one_step(start):
    model, optimizer, structure = structured(start=start, interval=1)
    assert [model[0].out_features, model[2].out_features] == [start, start]
    sizes = train(model, optimizer, structure, 8)
    assert sizes == [{"0": 24, "2": 16}] * 8
    assert model(X).isfinite().all()
    shapes = [tuple(parameter.shape) for parameter in mlp().parameters()]
    assert [tuple(parameter.shape) for parameter in model.parameters()] == shapes
    ours, own = model[4].weight.std(), mlp()[4].weight.std()
    assert 0.5 * own < ours < 2 * own  # new units are as large as the model's own
    assert optimizer.state[model[0].weight]["exp_avg"].shape == (24, 5)


def test_a_width_grows_back_in_multiples():
    model, optimizer, structure = structured(mlp(24, 16), start=4, multiple_of=8, interval=1)
    sizes = train(model, optimizer, structure, 4)
    assert sizes == [{"0": 24, "2": 16}] * 4


def test_a_size_that_is_no_multiple_is_refused_or_never_reached():
    try:
        rule = ds.Rule(max_units=32, p_add=0)
        model, optimizer, structure = structured(mlp(22, 16), start=4, multiple_of=4, interval=1, rule=rule)
    except ds.ConfigurationError:
        return
    for size in train(model, optimizer, structure, 8):
        assert size["0"] % 4 == 0


def test_units_are_added_where_a_larger_size_is_allowed():
    rule = ds.Rule(max_units=32, p_add=0.5)
    model, optimizer, structure = structured(mlp(4, 4), rule=rule)
    sizes = train(model, optimizer, structure, 300)
    assert structure.history.added() > 10
    assert max(max(size.values()) for size in sizes) <= 32
    latest = max(event.step for event in structure.history.events if event.added)
    assert latest <= 300 * (1 - 0.1 - 0.1)  # not where the grace period would last into the annealing


def test_a_unit_in_its_grace_period_is_worth_what_it_wins_alone_and_then_at_least_its_price():
    model, optimizer, structure = structured(rule=ds.Rule(grace_period=20, p_delete=0), interval=1)
    criterion, width = structure.criterion, structure.widths["0"]
    train(model, optimizer, structure, 8)
    np.testing.assert_array_equal(criterion.importance(width), criterion.tracker.alone["0"])
    train(model, optimizer, structure, 32)
    assert not criterion.removals.pending
    values = criterion.importance(width).numpy()
    expected = np.maximum(criterion.tracker.importance["0"] * criterion.removals.off["0"], criterion.price)
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    assert (values > criterion.price).all()


def test_importance_is_a_share_of_what_was_won_over_a_share_of_the_cost():
    model, optimizer, structure = structured(mlp(), rule=STILL, interval=1)
    train(model, optimizer, structure, 200)
    tracker = structure.criterion.tracker
    costs = {"0": 5 + 1 + 16, "2": 24 + 1 + 3}
    total = sum(costs[name] * structure.widths[name].size for name in tracker.shares)
    for name, width in structure.widths.items():
        assert tracker.shares[name] == pytest.approx(costs[name] / total)
        due = tracker.shares[name] * tracker.won
        diagonal = np.diag(tracker.curvature(name)) / 2 + np.maximum(-tracker.mean_slopes[name], 0)
        np.testing.assert_allclose(tracker.alone[name], diagonal / due, rtol=1e-3)
        assert width.size == len(diagonal)


def test_without_the_first_order_or_the_others_importance_is_what_is_left():
    for options in ({"first_order": False}, {"conditional": False}):
        model, optimizer, structure = structured(
            rule=STILL, interval=1, criterion=ds.TaylorImportance(**options)
        )
        train(model, optimizer, structure, 40)
        tracker = structure.criterion.tracker
        due = tracker.shares["0"] * tracker.won
        second = np.maximum(np.diag(tracker.curvature("0")), 0) / 2
        if "first_order" in options:
            np.testing.assert_allclose(tracker.alone["0"], second / due, rtol=1e-9)
            assert (tracker.importance["0"] < tracker.alone["0"]).any()
        else:
            first = np.maximum(-tracker.mean_slopes["0"], 0)
            expected = np.sqrt((second + first) * second) / due
            np.testing.assert_allclose(tracker.importance["0"], expected, rtol=1e-6, atol=1e-12)


def test_a_regression_is_learned_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 1))
    model, optimizer, structure = structured(model, total_steps=1500)
    train(model, optimizer, structure, 1500, lambda out, y: (out[:, 0] - y).square().mean())
    assert structure.criterion.tracker.loss.kind == "other"
    assert structure.criterion.tracker.won == pytest.approx(model(X).var().item() / 2, rel=0.3)
    assert structure.history.removed() > 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        structure.finish()
    assert (model(X)[:, 0] - Y).square().mean() < 0.3 * Y.double().var()


@pytest.mark.parametrize("nothing", [0, 7])
def test_an_empty_batch_is_passed_over(nothing):
    """As the last of an epoch may be: nothing can be told of it, and nothing is measured on it."""
    model, optimizer, structure = structured(interval=1, total_steps=40)
    tracker = structure.criterion.tracker
    for step in range(40):
        rows = slice(0, 0) if step in (nothing, 39) else slice(None)
        before = tracker.observations, tracker.loss, tracker.fisher["0"].copy()
        optimizer.zero_grad()
        F.cross_entropy(model(X[rows]), Y[rows], reduction="sum").backward()
        optimizer.step()
        structure.step()
        if step in (nothing, 39) and step:
            assert (tracker.observations, tracker.loss) == before[:2]
            np.testing.assert_array_equal(tracker.fisher["0"], before[2])
            assert not structure.criterion.removals.measurable
            state = structure.state_dict()
            structure.load_state_dict(state)
    assert tracker.loss.kind == "softmax"
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", ds.StructureWarning)
        structure.finish()
    assert model(X).isfinite().all()


def test_the_description_says_what_was_won():
    model, optimizer, structure = structured()
    assert structure.criterion.describe() == "TaylorImportance, price 0.3"
    train(model, optimizer, structure, 100)
    won = structure.criterion.tracker.won
    assert 0.2 < won < math.log(3)
    assert structure.criterion.describe() == f"TaylorImportance, price 0.3, {won:.3g} nats won"
    assert f"{won:.3g} nats won" in str(structure)


class TwoReaders(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.three.requires_grad_(False)

    def forward(self, x):
        hidden = torch.relu(self.one(x))
        return self.two(hidden) + self.three(hidden)


def test_a_width_that_frozen_weights_read_besides_others_is_refused():
    with pytest.raises(ds.StructureError, match="which is frozen, so that its importance cannot be measured"):
        structured(TwoReaders())
    structured(TwoReaders().requires_grad_(True))
