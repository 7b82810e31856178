"""The importance tracker within a structure: what it records, when, and what it leaves alone."""

import copy
import gc
import io
import math
import warnings
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import diffstruct as ds

X = torch.randn(32, 5, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)
EAGER = ds.Rule(threshold=0.5, reserve=0.3, min_reserve=2, p_add=0.5, max_units=32, grace_period=3)
STILL = ds.Rule(p_add=0, p_delete=0, p_spontaneous=0, grace_period=0)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def structured(model=None, lr=1e-2, **options):
    model = model or mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    settings = {"example_inputs": (X,), "rule": EAGER, "interval": 1, "total_steps": 100, **options}
    return model, optimizer, ds.Structure(model, optimizer, **settings)


def tracker(structure):
    return structure.criterion.tracker


def backward(model, rows=slice(None), share=1.0):
    loss = share * nn.functional.cross_entropy(model(X[rows]), Y[rows])
    loss.backward()
    return loss


def learn(model, optimizer, structure, steps=40, between=lambda model: None):
    for _ in range(steps):
        optimizer.zero_grad()
        backward(model)
        between(model)
        optimizer.step()
        structure.step()


def everything(model, optimizer, structure):
    """All that a step could change, copied."""
    mine = structure.states, structure.history, structure.steps, tracker(structure).fisher
    chance = structure.training.generator.bit_generator.state
    return copy.deepcopy((model.state_dict(), optimizer.state_dict(), chance, *mine))


def assert_same(found, expected):
    assert str(found) == str(expected)
    for name, tensor in expected[0].items():
        assert torch.equal(found[0][name].nan_to_num(7), tensor.nan_to_num(7)), name


def hooks(model):
    return sum(len(each._post_accumulate_grad_hooks or ()) for each in model.parameters())


def test_units_are_added_and_removed_and_every_one_of_them_is_recorded():
    model, optimizer, structure = structured(criterion=ds.TaylorImportance(settling=1e6), total_steps=400)
    learn(model, optimizer, structure, 120)
    assert structure.history.added() > 8
    while structure.history.removed() < 2:
        learn(model, optimizer, structure, 1)
        assert structure.steps < 400
    for name, width in structure.widths.items():
        assert tracker(structure).fisher[name].shape == (width.size, width.size)
        assert tracker(structure).mean_slopes[name].shape == (width.size,)
        older = structure.states[name].ages > 0
        assert (np.diag(tracker(structure).fisher[name])[older] != 0).any()
    # After all this surgery the slopes are still those of every unit.
    learn(model, optimizer, structure, 1)
    optimizer.zero_grad()
    hidden = model[1](model[0](X))
    factor = torch.ones(hidden.shape[1], requires_grad=True)
    loss = nn.functional.cross_entropy(model[4](model[3](model[2](hidden * factor))), Y)
    (expected,) = torch.autograd.grad(loss, factor)
    backward(model)
    tracker(structure).rate = 1.0  # look back on nothing else
    ages = {name: state.ages for name, state in structure.states.items()}
    tracker(structure).update(ages, structure.criterion.outputs.loss())
    square = 32 * np.outer(expected, expected)
    np.testing.assert_allclose(tracker(structure).fisher["0"], square, rtol=1e-2, atol=1e-5 * square.max())


@pytest.mark.slow
def test_it_works_on_layers_that_declare_their_width():
    torch.manual_seed(0)
    lower, upper, readout = ds.nn.GRU(5, 4), ds.nn.RNN(4, 4), nn.Linear(4, 3)
    lower.feeds(upper)
    upper.feeds(readout)
    model = nn.ModuleList([lower, upper, readout])
    model, optimizer, structure = structured(model, example_inputs=None, start=1)
    assert lower.hidden_size == 1
    state = None
    for _ in range(60):
        hidden, state = lower(X.view(4, 8, 5), state)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(readout(upper(hidden)[0]).flatten(0, 1), Y)
        loss.backward()
        optimizer.step()
        structure.step()
        state = structure.carry(state.detach(), "0")
    assert tracker(structure).loss is None  # nobody calls the list of layers
    for name, width in structure.widths.items():
        assert structure.history.added(name) > 2
        assert tracker(structure).fisher[name].shape == (width.size, width.size)
    plain = structure.finish()
    assert type(plain[0]) is nn.GRU
    assert hooks(plain) == 0


def test_clipping_gradients_does_not_change_importance():
    found = []
    for clip in (None, lambda model: nn.utils.clip_grad_norm_(model.parameters(), 1e-6)):
        model, optimizer, structure = structured(rule=STILL)
        learn(model, optimizer, structure, 1, between=clip or (lambda model: None))
        found.append(tracker(structure).fisher)
    for name, fisher in found[0].items():
        assert fisher.any()
        assert np.array_equal(found[1][name], fisher)


def test_accumulated_gradients_are_recorded_together():
    found = []
    for parts in (1, 4):
        model, optimizer, structure = structured(rule=STILL)
        for part in range(parts):
            backward(model, slice(part * 32 // parts, (part + 1) * 32 // parts), 1 / parts)
        optimizer.step()
        structure.step()
        found.append(tracker(structure).fisher)
    for name, fisher in found[0].items():
        np.testing.assert_allclose(found[1][name], fisher, rtol=1e-3, atol=1e-6 * fisher.max())


def test_only_the_gradients_of_steps_with_a_decision_are_recorded():
    model, optimizer, structure = structured(
        rule=STILL, interval=4, lr=0, criterion=ds.TaylorImportance(memory=1.0)
    )
    expected = []
    for step in range(1, 13):
        optimizer.zero_grad()
        backward(model, slice(step, step + 8))
        if step % 4:
            assert not tracker(structure)._slopes
        else:
            weight = model[4].weight
            slopes = math.sqrt(8) * (weight * weight.grad).sum(0).detach().double().numpy()
            expected.append(np.outer(slopes, slopes))
        optimizer.step()
        structure.step()
        count = len(expected)
        mean = sum(expected) / count if count else np.zeros((6, 6))
        np.testing.assert_allclose(tracker(structure).fisher["2"], mean, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("interval", [1, 3])
def test_steps_without_a_gradient_are_warned_of_once_and_change_nothing(interval):
    _, _, structure = structured(rule=STILL, interval=interval)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        events = [structure.step() for _ in range(7)]
    assert events == [()] * 7
    assert [warning.category for warning in found] == [ds.StructureWarning]
    assert "no gradient of any outgoing weight was recorded" in str(found[0].message)
    assert found[0].filename == __file__
    assert not any(fisher.any() for fisher in tracker(structure).fisher.values())


def test_a_width_that_frozen_weights_read_is_refused_and_the_others_are_learned():
    model = mlp()
    model[4].requires_grad_(False)
    _, _, structure = structured(model)
    assert [*structure.widths] == ["0"]
    assert "no weight that reads it is trained" in structure.explain()
    assert model[2].out_features == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total_steps": 0}, "total_steps must be a whole number"),
        ({"total_steps": 10.0}, "total_steps must be a whole number"),
        ({"interval": 0}, "interval must be a whole number of steps from 1"),
        ({"criterion": ds.TaylorImportance(annealing=0.98)}, "leave no time in which units could be added"),
        (
            {"rule": ds.Rule(grace_period=10, max_units=16), "total_steps": 11},
            "the grace_period, 91% of 11 steps",
        ),
    ],
)
def test_options_that_cannot_work_raise(options, message):
    with pytest.raises(ds.ConfigurationError, match=message):
        structured(**options)


def test_after_the_total_steps_structure_and_weights_are_left_alone():
    model, optimizer, structure = structured(total_steps=30)
    learn(model, optimizer, structure, 30)
    before, events = copy.deepcopy(model.state_dict()), len(structure.history.events)
    assert events
    assert max(event.step for event in structure.history.events if event.added) < 27  # the annealing
    for _ in range(20):
        optimizer.zero_grad()
        backward(model)
        assert structure.step() == ()
    assert structure.steps == 50
    assert len(structure.history.events) == events
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_finish_removes_units_that_say_nothing_and_takes_the_hooks_away():
    model, optimizer, structure = structured(rule=STILL, total_steps=1000)
    assert hooks(model) == 2
    assert len(model._forward_hooks) == 1
    learn(model, optimizer, structure, 60)  # a network that has won nothing loses no unit
    with torch.no_grad():
        model[2].weight[:, :3] = 0  # three without outgoing weights
    optimizer.param_groups[0]["lr"] = 0.0
    for step in range(120):  # until the averages have forgotten what they said
        optimizer.zero_grad()
        backward(model, slice(step % 20, step % 20 + 12))
        optimizer.step()
        structure.step()
    before = model(X).detach()
    assert structure.finish() is model
    assert hooks(model) == len(model._forward_hooks) == 0
    assert structure.widths["0"].size <= 5
    assert structure.widths["0"].size == model[0].out_features
    assert (model(X) - before).square().sum() < 0.1 * (before - before.mean(0)).square().sum()
    with pytest.raises(ds.StructureError, match="finished"):
        structure.step()
    optimizer.zero_grad()
    backward(model)  # and on we train
    optimizer.step()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_refused_and_nothing_happens(value):
    model, optimizer, structure = structured(nonfinite="ignore")
    learn(model, optimizer, structure, 10)
    optimizer.zero_grad()
    (model(X).sum() * value).backward()
    optimizer.step()
    before = everything(model, optimizer, structure)
    with pytest.raises(ds.DivergenceError, match="the loss has diverged"):
        structure.step()
    assert_same(everything(model, optimizer, structure), before)


def test_the_same_seed_gives_the_same_run_bit_for_bit():
    runs = []
    for seed in (5, 5, 6):
        model, optimizer, structure = structured(seed=seed)
        learn(model, optimizer, structure, 50)
        runs.append(everything(model, optimizer, structure))
    assert_same(runs[0], runs[1])
    assert str(runs[0]) != str(runs[2])


class Shared(nn.Module):
    """Two readers with one weight."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(5, 4), nn.Linear(4, 3), nn.Linear(4, 3)
        self.three.weight = self.two.weight
        self.factor = None

    def forward(self, x):
        hidden = torch.tanh(self.one(x))
        hidden = hidden if self.factor is None else hidden * self.factor
        return self.two(hidden) + 3 * self.three(hidden).sin()


class SharedDeclared(Shared):
    def __init__(self):
        super().__init__()
        self.one = ds.nn.RNN(5, 4)
        self.one.feeds(self.two, self.three)
        nn.init.zeros_(self.one.weight_hh_l0)  # each step by itself, so that one factor is all

    def forward(self, x):
        hidden = self.one(x[None])[0][0]
        hidden = hidden if self.factor is None else hidden * self.factor
        return self.two(hidden) + 3 * self.three(hidden).sin()


@pytest.mark.parametrize("kind", [Shared, SharedDeclared])
def test_weights_that_two_modules_share_count_once_and_decay_once(kind):
    torch.manual_seed(0)
    model = kind()
    options = {"example_inputs": None} if kind is SharedDeclared else {}
    model, optimizer, structure = structured(
        model, rule=STILL, criterion=ds.TaylorImportance(rise=1e-9, settling=1e9), lr=0.05, **options
    )
    criterion = structure.criterion
    criterion.removals.find = lambda *_: None
    model.factor = torch.ones(4, requires_grad=True)
    mine = [tensor is model.two.weight for tensor, _ in tracker(structure).readers]
    assert sum(mine) == 1
    for step in range(30):
        optimizer.zero_grad()
        model.factor.grad = None
        backward(model)
        optimizer.step()
        before = model.two.weight.detach().clone()
        structure.step()
        assert tracker(structure).loss.scale == pytest.approx(1, rel=1e-3)
        ((name, fisher),) = tracker(structure).fisher.items()
        expected = 32 * np.outer(model.factor.grad, model.factor.grad)
        if step == 0:  # the first observation
            np.testing.assert_allclose(fisher, expected, rtol=1e-3, atol=1e-7)
    importances = criterion.removals.importance(name)
    moved = criterion._pressure**3 * criterion._decay._movement[mine.index(True)]
    assert moved > 0
    factors = 1 - moved * (criterion.price / (importances + criterion.price)) ** 2
    torch.testing.assert_close(model.two.weight.detach(), before * torch.from_numpy(factors).float())


def test_a_second_graph_of_the_gradient_is_no_obstacle():
    model, optimizer, structure = structured(rule=STILL)
    loss = nn.functional.cross_entropy(model(X), Y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of a cycle, once
        loss.backward(create_graph=True)
    optimizer.step()
    structure.step()
    assert tracker(structure).fisher["0"].any()
    model.zero_grad()


def test_copies_and_pickles_of_the_model_alone_have_no_hooks():
    model, optimizer, structure = structured()
    learn(model, optimizer, structure, 20)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert hooks(other) == 0
        backward(other)
    assert not tracker(structure)._slopes  # their gradients are not recorded


def test_the_model_does_not_keep_a_structure_alive():
    model, optimizer, structure = structured()
    learn(model, optimizer, structure, 3)
    mine = weakref.ref(tracker(structure))
    del structure
    gc.collect()
    assert mine() is None
    backward(model)  # the hooks record nothing
    optimizer.step()


def test_sizes_are_multiples_where_that_is_asked_for():
    model, optimizer, structure = structured(multiple_of=4, start=4)
    for _ in range(60):
        learn(model, optimizer, structure, 1)
        assert all(width.size % 4 == 0 for width in structure.widths.values())
    assert structure.history.added() > 4
    structure.finish()
    assert all(width.size % 4 == 0 for width in structure.widths.values())
