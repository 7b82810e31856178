"""A constructor that fails leaves model and optimizer as they were."""

import copy

import pytest
import torch
from torch import nn

import diffstruct as ds

X = torch.ones(8, 5)


class Failing(ds.Multipliers):
    """Fails after the widths have been cut."""

    def resize(self, changes, step):
        raise KeyboardInterrupt


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


CASES = [
    ({"criterion": ds.Multipliers(), "start": 99}, ds.ConfigurationError),
    ({"criterion": ds.Multipliers(), "interval": 0}, ds.ConfigurationError),
    ({"criterion": ds.Multipliers(), "multiple_of": 5}, ds.ConfigurationError),
    ({"criterion": ds.Multipliers(ds.L1Price(1e-3, floor=1.0))}, ds.ConfigurationError),
    ({"interval": 11}, ds.ConfigurationError),
    ({"criterion": ds.OutgoingNorm}, ds.ConfigurationError),
    ({"rule": {"nothing": ds.Rule()}}, ds.ConfigurationError),
    ({"criterion": Failing()}, KeyboardInterrupt),
]


@pytest.mark.parametrize(("options", "error"), CASES)
def test_a_constructor_that_fails_leaves_nothing_behind(options, error):
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    model(X).sum().backward()
    optimizer.step()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    modules = [*model.modules()]
    with pytest.raises(error):
        ds.Structure(model, optimizer, example_inputs=(X,), total_steps=10, **{"start": 1, **options})
    assert [*model.modules()] == modules
    torch.testing.assert_close((model.state_dict(), optimizer.state_dict()), before, rtol=0, atol=0)
    assert [model[0].out_features, model[2].out_features] == [8, 6]
    assert not optimizer._optimizer_step_pre_hooks
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())


def test_total_steps_is_required():
    model = mlp()
    with pytest.raises(TypeError, match="total_steps"):
        ds.Structure(model, torch.optim.Adam(model.parameters()), example_inputs=(X,))


@pytest.mark.parametrize("criterion", [ds.OutgoingNorm(ds.L1Price(0.01)), ds.Multipliers(ds.L1Price(0.01))])
def test_after_the_total_steps_norms_are_left_alone_too(criterion):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    structure = ds.Structure(
        model,
        optimizer,
        example_inputs=(X,),
        total_steps=12,
        criterion=criterion,
        rule=ds.Rule(p_add=1.0),
        start=None,
        interval=1,
    )
    for _ in range(12):
        structure.step()
    events, weights = len(structure.history.events), copy.deepcopy(model.state_dict())
    assert events > 0
    for _ in range(10):
        assert structure.step() == ()
    assert len(structure.history.events) == events
    torch.testing.assert_close(dict(model.state_dict()), dict(weights), rtol=0, atol=0)


def test_a_run_shorter_than_the_usual_interval_has_a_decision():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"total_steps": 5, "criterion": ds.OutgoingNorm(), "start": 1}
    rule = ds.Rule(p_add=1.0, reserve=2)
    structure = ds.Structure(model, optimizer, example_inputs=(X,), rule=rule, **options)
    events = [structure.step() for _ in range(5)]
    assert events[-1]
