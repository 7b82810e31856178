"""Importance: the derivatives against autograd, each formula against an oracle of its own."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import diffstruct as ds
from diffstruct.criteria import importance

STILL = ds.Rule(p_add=0, p_delete=0, p_spontaneous=0, grace_period=0)
SEEDS = st.integers(0, 2**32 - 1)


def observer(model, example, steps=100, **options):
    """A structure that watches the model and changes nothing."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    inputs = None if example is None else (example,)
    return ds.Structure(
        model,
        optimizer,
        example_inputs=inputs,
        total_steps=steps,
        criterion=ds.TaylorImportance(**options),
        rule=STILL,
        interval=1,
    )


def curvature(size, rank, seed):
    """A random positive semidefinite matrix, as that of moving averages is."""
    slopes = np.random.default_rng(seed).standard_normal((rank, size))
    return slopes.T @ slopes / rank


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(3, 2)
        self.factors = {}  # on the outputs of units, by width; none while the structure watches

    def scaled(self, name, hidden):
        factor = self.factors.get(name)
        if factor is None:
            return hidden
        return hidden * (factor.view(-1, 1, 1) if hidden.ndim == 4 else factor)

    def forward(self, x):
        hidden = self.scaled("one", torch.relu(self.one(x)))
        return self.out(self.scaled("two", torch.relu(self.two(hidden))))


class ConvNet(MLP):
    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 3, 3)
        self.out = nn.Linear(3 * 4, 2)  # four pixels of each channel

    def forward(self, x):
        hidden = self.scaled("one", torch.relu(self.norm(self.one(x))))
        return self.out(self.scaled("two", torch.tanh(self.two(hidden))).flatten(1))


class Concatenated(MLP):
    """Two widths side by side in one dimension of one weight."""

    def __init__(self):
        super().__init__()
        self.two, self.out = nn.Linear(4, 3), nn.Linear(5 + 3, 2)

    def forward(self, x):
        one = self.scaled("one", torch.tanh(self.one(x)))
        return self.out(torch.cat([self.scaled("two", torch.tanh(self.two(x))), one], -1))


class Recurrent(MLP):
    """`h_t = tanh(W x_t + U (f h_{t-1}) + b)`, read by two layers and itself, through the factor."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = ds.nn.RNN(4, 5), nn.Linear(5, 3), nn.Linear(5, 2)
        self.one.feeds(self.two, self.out)

    def forward(self, x):
        if not self.factors:
            hidden = self.one(x)[0]
        else:
            last, hidden = x.new_zeros(x.shape[1], 5), []
            for now in x:
                rnn = self.one
                total = now @ rnn.weight_ih_l0.T + self.scaled("one", last) @ rnn.weight_hh_l0.T
                last = torch.tanh(total + rnn.bias_ih_l0 + rnn.bias_hh_l0)
                hidden.append(last)
            hidden = self.scaled("one", torch.stack(hidden))
        return self.two(hidden).exp().sum(-1, keepdim=True) * self.out(hidden)


CASES = [(MLP, (7, 4)), (ConvNet, (7, 2, 6, 6)), (Concatenated, (7, 4)), (Recurrent, (6, 7, 4))]


def watched(kind, shape):
    """A model in double precision, what it is trained on, and a structure that watches it."""
    torch.manual_seed(0)
    model, x = kind().double(), torch.randn(shape, dtype=torch.float64)
    return model, x, observer(model, None if kind is Recurrent else x)


def observe(structure):
    """What follows `backward`: a step of the optimizer, which changes nothing here, and of the structure."""
    structure.training.optimizers[0].step()
    structure.step()


def observed(model, x, structure):
    """`F` of each width after the first observation, which is the square of the slopes."""
    model.zero_grad()
    model(x).sin().sum().backward()
    observe(structure)
    assert structure.criterion.tracker.loss.kind == "other"
    return dict(structure.criterion.tracker.fisher)


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_slopes_are_derivatives_with_respect_to_factors_on_outputs(kind, shape):
    """In units of the length of the gradient at the model's outputs, as this is no known loss."""
    model, x, structure = watched(kind, shape)
    found = observed(model, x, structure)
    assert len(found) == (1 if kind is Recurrent else 2)
    factors = {
        name: torch.ones(width.size, dtype=torch.float64, requires_grad=True)
        for name, width in structure.widths.items()
    }
    model.factors = factors
    outputs = model(x)
    slopes = torch.autograd.grad(outputs.sin().sum(), list(factors.values()))
    unit = np.linalg.norm(outputs.detach().cos())
    for name, slope in zip(factors, slopes, strict=True):
        assert slope.abs().max() > 1e-3
        np.testing.assert_allclose(found[name], np.outer(slope, slope) / unit**2, rtol=1e-5, atol=1e-14)


def test_slopes_do_not_change_when_weights_are_rescaled_across_a_unit():
    model, x, structure = watched(*CASES[0])
    other = copy.deepcopy(model)
    scale = torch.tensor([0.01, 0.5, 1.0, 3.0, 200.0], dtype=torch.float64)
    with torch.no_grad():
        other.one.weight.mul_(scale[:, None])
        other.one.bias.mul_(scale)
        other.two.weight.div_(scale)
    mine, theirs = observed(model, x, structure), observed(other, x, observer(other, x))
    for name, fisher in mine.items():
        np.testing.assert_allclose(theirs[name], fisher, rtol=1e-5, atol=1e-14)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, size=st.integers(1, 6))
def test_marginal_importance_is_two_orders_of_the_series(seed, size):
    """Of the first order, only where the loss asks for more of the unit."""
    fisher, mean = curvature(size, 9, seed), np.random.default_rng(seed).standard_normal(size)
    for kept in (fisher, np.diag(fisher)):
        found = importance.marginal(kept, mean)
        for i in range(size):
            expected = fisher[i, i] / 2 + (-mean[i] if mean[i] < 0 else 0)
            assert found[i] == pytest.approx(expected)
        np.testing.assert_allclose(importance.marginal(kept, mean, first_order=False), np.diag(fisher) / 2)
    assert importance.marginal(np.array([-1e-9]), np.array([1.0])) == 0  # by rounding


def silenced(fisher, unit, ridge):
    """The least of `d'Fd / 2 + r |d_others|^2 / 2` over what the others do, `d_unit` being -1."""
    others = [each for each in range(len(fisher)) if each != unit]
    system = fisher[np.ix_(others, others)] + ridge * np.eye(len(others))
    change = np.full(len(fisher), -1.0)
    change[others] = np.linalg.solve(system, fisher[others, unit])
    return 0.5 * change @ fisher @ change + 0.5 * ridge * change[others] @ change[others]


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, size=st.integers(1, 9), rank=st.integers(1, 12), price=st.floats(1e-3, 10))
def test_conditional_importance_is_the_least_that_silencing_costs(seed, size, rank, price):
    fisher = curvature(size, rank, seed)
    before = fisher.copy()
    jointly, alone = importance.conditional(fisher, price), 0.5 * np.diag(fisher)
    expected = [silenced(fisher, unit, 2 * price) for unit in range(size)]
    np.testing.assert_allclose(jointly, expected, rtol=1e-7, atol=1e-10)
    assert (jointly >= 0).all()
    assert (jointly <= alone).all()
    mean = np.random.default_rng(seed).standard_normal(size)
    for first_order in (True, False):
        own = importance.marginal(np.diag(fisher), mean, first_order)
        found = importance.geometric_mean(fisher, mean, price, first_order)
        np.testing.assert_allclose(found, np.sqrt(own * expected), atol=1e-5)
    assert np.array_equal(fisher, before)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, size=st.integers(1, 9), price=st.floats(1e-3, 10), data=st.data())
def test_takeover_is_the_least_that_silencing_several_costs(seed, size, price, data):
    fisher = curvature(size, 6, seed)
    going = data.draw(st.sets(st.integers(0, size - 1), min_size=1))
    units = np.array(sorted(going), np.int64)
    found = importance.takeover(fisher, units, price)
    others = [unit for unit in range(size) if unit not in going]
    assert not found[units].any()
    if others:
        system = fisher[np.ix_(others, others)] + 2 * price * np.eye(len(others))
        best = np.linalg.solve(system, fisher[np.ix_(others, units)] @ np.ones(len(units)))
        np.testing.assert_allclose(found[others], np.clip(best, -0.5, 1.0), rtol=1e-7, atol=1e-10)
    assert not importance.takeover(np.diag(fisher).copy(), units, price).any()


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, size=st.integers(2, 9), price=st.floats(0.05, 2))
def test_averages_of_many_ages_that_are_no_covariance_are_inverted_all_the_same(seed, size, price):
    """Pairs of old and new units are averaged over other times than either alone."""
    fisher = curvature(size, 20, seed)
    fisher[0, 1:] = fisher[1:, 0] = 3 * np.sqrt(fisher[0, 0] * np.diag(fisher)[1:]) + 2 * price
    whole = fisher + 2 * price * np.eye(size)
    assert np.linalg.eigvalsh(whole)[0] < 0
    expected = np.clip(0.5 / np.diag(np.linalg.inv(whole)) - price, 0, 0.5 * np.diag(fisher))
    np.testing.assert_allclose(importance.conditional(fisher, price), expected, rtol=1e-6, atol=1e-9)
    going, others = np.array([size - 1]), np.arange(size - 1)
    best = np.linalg.solve(whole[np.ix_(others, others)], fisher[others, size - 1])
    found = importance.takeover(fisher, going, price)[others]
    np.testing.assert_allclose(found, np.clip(best, -0.5, 1.0), rtol=1e-6, atol=1e-9)


def test_a_double_takes_all_over_and_a_stranger_nothing():
    fisher = np.array([[2.0, 2, 0], [2, 2, 0], [0, 0, 3]])
    np.testing.assert_allclose(importance.takeover(fisher, np.array([1]), 1e-9), [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(importance.takeover(fisher, np.array([2]), 1e-9), [0, 0, 0], atol=1e-6)


def test_where_nothing_was_won_and_fewer_slopes_were_seen_than_units_all_is_finite():
    """The price is next to nothing then, and the curvature has no inverse."""
    slopes = np.random.default_rng(0).normal(size=(3, 10))
    slopes[:, 7:] = 0
    fisher = slopes.T @ slopes
    for price in (0.0, 1e-32):
        jointly = importance.conditional(fisher, price)
        assert (jointly >= 0).all()
        assert (jointly <= 0.5 * np.diag(fisher)).all()
        assert np.isfinite(importance.takeover(fisher, np.array([0, 8]), price)).all()
    assert not importance.conditional(np.zeros((3, 3)), 1e-32).any()


def test_duplicates_have_no_conditional_importance_and_independent_units_all_of_it():
    fisher = np.array([[2.0, 2, 0, 0], [2, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 0.5]])
    jointly = importance.conditional(fisher, 1e-6)
    np.testing.assert_allclose(jointly, [0, 0, 1.5, 0.25], atol=1e-5)
    line = np.array([2.0, 0.0, 1.0])  # of a width that is too large to look at pairs
    np.testing.assert_array_equal(importance.conditional(line, 1e-6), 0.5 * line)


@pytest.mark.parametrize("held_down", [1.0, 0.9, 0.7])
def test_importance_is_what_the_loss_rises_by_without_the_unit(held_down):
    """A readout of small weights, at its optimum, or held down from there, as the price does."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x = torch.randn(4096, 4, dtype=torch.float64)
    with torch.no_grad():
        model[2].weight.mul_(torch.tensor([0.1, 0.2, 0.4, 0.8, 1.2, 1.6]))
        y = torch.distributions.Categorical(logits=model(x)).sample()

    def loss(inputs=x, targets=y):
        return nn.functional.cross_entropy(model(inputs), targets)

    readout = [*model[2].parameters()]
    newton = torch.optim.LBFGS(readout, max_iter=100, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure():
        model.zero_grad()
        value = loss()
        value.backward()
        return value

    newton.step(closure)
    with torch.no_grad():
        model[2].weight.mul_(held_down)
    batch, before_it_goes = 16, loss().item()
    structure = observer(model, x[:batch], steps=len(x) // batch, memory=1.0)
    for some in torch.arange(len(x)).split(batch):
        model.zero_grad()
        loss(x[some], y[some]).backward()
        observe(structure)
    tracker = structure.criterion.tracker
    tracker.refresh()
    series = 0.5 * importance.diagonal(tracker.curvature("0")) - tracker.mean_slopes["0"]
    found = tracker.alone["0"] * tracker.shares["0"] * tracker.won
    risen = []
    for unit in range(6):
        weight = model[2].weight.detach()
        before = weight.clone()
        weight[:, unit] = 0
        risen.append(loss().item() - before_it_goes)
        weight.copy_(before)
    assert max(risen) > 10 * min(risen)  # over more than an order of magnitude, or some do harm
    assert series.tolist() == pytest.approx(risen, rel=0.2, abs=2e-4)
    assert (found >= series - 1e-9).all()  # but for what the first order says against a unit
    if held_down == 1:
        assert found.tolist() == pytest.approx(risen, rel=0.2, abs=2e-4)


def test_the_inverse_runs_on_the_threads_of_pytorch(monkeypatch):
    """NumPy's BLAS ignores `torch.set_num_threads`, and would compete with the training."""

    def refuse(*_):
        raise AssertionError("NumPy inverts")

    fisher = curvature(5, 9, 0)
    expected = [silenced(fisher, unit, 0.2) for unit in range(5)]
    for name in ("inv", "pinv", "solve", "cholesky", "eigh"):
        monkeypatch.setattr(np.linalg, name, refuse)
    np.testing.assert_allclose(importance.conditional(fisher, 0.1), expected, rtol=1e-9)
