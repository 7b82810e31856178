"""The scale of the loss says nothing: whole runs end alike, bit for bit where scales are powers of two."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import diffstruct as ds

CHANCE = torch.Generator().manual_seed(0)
X = torch.randn(512, 8, generator=CHANCE).double()
Y = (X[:, :4] * X[:, 4:]).argmax(1)
STEPS = 200


def softmax(out, y):
    return F.cross_entropy(out, y)


def sigmoid(out, y):
    return F.binary_cross_entropy_with_logits(out, F.one_hot(y, 4).double())


def squared(out, y):
    return F.mse_loss(out, F.one_hot(y, 4).double())


def run(loss, lr, optimizer=torch.optim.SGD, rows=32, **options):
    """Train with units that come and go; return what the structure did, and the weights at the end."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 4)
    ).double()
    rule = ds.Rule(max_units=40, p_add=0.1, min_reserve=1, reserve=0.05)
    made = optimizer(model.parameters(), lr=lr)
    structure = ds.Structure(
        model,
        made,
        example_inputs=(X[:4],),
        total_steps=STEPS,
        criterion=ds.TaylorImportance(price=2.0, settling=100.0),
        rule=rule,
        interval=2,
        **options,
    )
    importances = []
    for step in range(STEPS):
        some = slice(step * rows % 512, step * rows % 512 + rows)
        made.zero_grad()
        loss(model(X[some]), Y[some]).backward()
        made.step()
        structure.step()
        importances.append(structure.criterion.tracker.importance["0"].copy())
    structure.finish()
    return structure, importances, model


def described(structure):
    return [(e.step, e.width, e.removed, e.added, e.size) for e in structure.history.events]


@pytest.mark.slow
@pytest.mark.parametrize("loss", [softmax, sigmoid, squared])
def test_a_factor_on_the_loss_that_the_learning_rate_undoes_changes_nothing(loss):
    runs = [run(lambda out, y, f=f: f * loss(out, y), 0.5 / f) for f in (1.0, 2.0**-10, 2.0**10)]
    (plain, importances, model), *others = runs
    assert plain.history.removed() >= 1
    assert plain.history.added() > 3
    for structure, found, other in others:
        assert described(structure) == described(plain)
        assert str(structure) == str(plain)
        for mine, expected in zip(found, importances, strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-9)
        for mine, expected in zip(other.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [softmax, sigmoid, squared])
def test_the_sum_over_a_batch_is_judged_as_the_mean_is(loss):
    factor = {softmax: 32.0, sigmoid: 128.0, squared: 128.0}[loss]
    whole = {
        softmax: lambda out, y: F.cross_entropy(out, y, reduction="sum"),
        sigmoid: lambda out, y: F.binary_cross_entropy_with_logits(
            out, F.one_hot(y, 4).double(), reduction="sum"
        ),
        squared: lambda out, y: F.mse_loss(out, F.one_hot(y, 4).double(), reduction="sum"),
    }[loss]
    mean, importances, _ = run(loss, 0.5)
    total, found, _ = run(whole, 0.5 / factor)
    assert mean.history.removed() >= 1
    assert described(total) == described(mean)
    for mine, expected in zip(found, importances, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-9)


@pytest.mark.slow
def test_under_adam_a_factor_on_the_loss_changes_nothing_at_all():
    """Adam divides by the gradient's size, but for its epsilon."""

    def adam(weights, lr):
        return torch.optim.Adam(weights, lr, eps=1e-60)

    runs = [run(lambda out, y, f=f: f * softmax(out, y), 5e-3, adam)[0] for f in (1.0, 2.0**-10, 2.0**10)]
    assert runs[0].history.removed() >= 1
    assert described(runs[0]) == described(runs[1]) == described(runs[2])


@pytest.mark.slow
@pytest.mark.parametrize("budget", [300, 150])
def test_with_a_budget_as_well(budget):
    runs = [
        run(lambda out, y, f=f: f * softmax(out, y), 0.5 / f, budget=ds.Budget(parameters=budget))
        for f in (1.0, 2.0**10)
    ]
    assert described(runs[0][0]) == described(runs[1][0])
    assert sum(p.numel() for p in runs[0][2].parameters()) <= budget


def test_accumulated_gradients_are_judged_as_those_of_the_whole_batch():
    def in_parts(parts):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        still = ds.Rule(p_add=0, p_delete=0, p_spontaneous=0, grace_period=0)
        structure = ds.Structure(
            model, optimizer, example_inputs=(X[:4],), total_steps=200, rule=still, interval=1
        )
        for step in range(30):
            optimizer.zero_grad()
            for part in X[16 * step :][:16].chunk(parts):
                (softmax(model(part), (part[:, :4] * part[:, 4:]).argmax(1)) / parts).backward()
            optimizer.step()
            structure.step()
        return structure.criterion.tracker

    whole, parts = in_parts(1), in_parts(4)
    assert parts.loss.predictions == whole.loss.predictions == 16
    assert parts.won == pytest.approx(whole.won, rel=1e-4)
    np.testing.assert_allclose(parts.importance["0"], whole.importance["0"], rtol=1e-3)
    assert whole.importance["0"].any()
