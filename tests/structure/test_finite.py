"""Gradients that are not finite: nothing is spoiled, and the step is refused, or left out."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from helpers.faults import differences, picture
from torch import nn

import diffstruct as ds

X = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)
KINDS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    "fused SGD": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.01),
    "fused Adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1, fused=True),
    **{
        kind.__name__: lambda p, kind=kind: kind(p, 0.01)
        for kind in (
            *(torch.optim.Adadelta, torch.optim.Adafactor, torch.optim.Adagrad, torch.optim.Adamax),
            *(torch.optim.ASGD, torch.optim.NAdam, torch.optim.RAdam, torch.optim.RMSprop, torch.optim.Rprop),
        )
    },
}


def made(optimizer=KINDS["AdamW"], nonfinite="raise", steps=200, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    made_of = optimizer(model.parameters())
    options = {"example_inputs": (X,), "total_steps": steps, "nonfinite": nonfinite, **options}
    return model, made_of, ds.Structure(model, made_of, **options)


def backward(model, optimizer, scale=1.0, x=X):
    optimizer.zero_grad()
    (nn.functional.cross_entropy(model(x), Y) * scale).backward()


def train(model, optimizer, structure, steps=3):
    for _ in range(steps):
        backward(model, optimizer)
        optimizer.step()
        structure.step()


def everything(model, optimizer):
    """All but gradients."""
    return {way: each for way, each in picture(model, optimizer).items() if ".grad" not in way}


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_is_refused_has_touched_nothing(kind, value):
    model, optimizer, structure = made(KINDS[kind])
    train(model, optimizer, structure)
    before = everything(model, optimizer)
    backward(model, optimizer, value, X * value)
    with pytest.raises(ds.DivergenceError, match=r"gradient of 0\.weight is not finite at step 4"):
        optimizer.step()
    assert not differences(before, everything(model, optimizer))
    train(model, optimizer, structure)
    assert all(each.isfinite().all() for each in model.state_dict().values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_is_left_out_is_as_if_its_batch_had_never_been(kind):
    runs = [made(KINDS[kind], "skip") for _ in range(2)]
    for run in runs:
        train(*run)
    model, optimizer, structure = runs[0]
    backward(model, optimizer, x=X * math.inf)
    with pytest.warns(ds.StructureWarning, match="at step 4, which is left out"):
        optimizer.step()
    assert structure.guard.skipped == 1
    for run in runs:
        train(*run)
    mine, theirs = (everything(*run[:2]) for run in runs)
    objects = ":object", "hooks:keys", "kwargs:keys"
    assert not [way for way in differences(mine, theirs) if not way.endswith(objects)]


def test_finish_says_how_many_steps_were_left_out():
    model, optimizer, structure = made(nonfinite="skip", steps=6)
    train(model, optimizer, structure)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            backward(model, optimizer, math.nan)
            optimizer.step()
            structure.step()
        structure.finish()
    said = [str(each.message) for each in caught]
    assert len([each for each in said if "is left out" in each]) == 1
    assert any(each.startswith("3 of 6 steps were left out") for each in said)


def test_a_decision_about_a_step_that_was_left_out_learns_nothing_from_it():
    model, optimizer, structure = made(nonfinite="skip", interval=4)
    train(model, optimizer, structure, 7)
    observations = structure.criterion.tracker.observations
    backward(model, optimizer, math.nan)
    with pytest.warns(ds.StructureWarning):
        optimizer.step()
    structure.step()
    assert structure.criterion.tracker.observations == observations == 1
    train(model, optimizer, structure, 4)
    assert structure.criterion.tracker.observations == 2


def test_who_does_not_look_hears_of_it_at_the_next_decision():
    model, optimizer, structure = made(nonfinite="ignore", interval=4)
    backward(model, optimizer, math.nan)
    optimizer.step()
    assert model[0].weight.isnan().any()
    with pytest.raises(ds.DivergenceError):
        train(model, optimizer, structure, 4)


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_closures(nonfinite):
    model, optimizer, structure = made(nonfinite=nonfinite)
    scales = iter([1.0, 1.0, math.nan])

    def closure():
        loss = backward(model, optimizer, next(scales))
        return loss

    for _ in range(2):
        optimizer.step(closure)
        structure.step()
    before = everything(model, optimizer)
    kind = {"raise": pytest.raises(ds.DivergenceError), "skip": pytest.warns(ds.StructureWarning)}
    with kind[nonfinite]:
        optimizer.step(closure=closure)
    assert not differences(before, everything(model, optimizer))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("nonfinite", ["raise", "skip", "ignore"])
def test_a_grad_scaler_leaves_its_steps_out_itself(nonfinite, fused):
    model, optimizer, structure = made(
        lambda p: torch.optim.AdamW(p, 0.01, fused=fused), nonfinite, interval=3
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step in range(9):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X), Y) * (math.inf if step in (3, 5) else 1.0)
        scaler.scale(loss).backward()
        before = model[0].weight.detach().clone()
        scaler.step(optimizer)
        scaler.update()
        structure.step()
        assert torch.equal(model[0].weight, before) == (step in (3, 5))
    assert structure.guard.skipped == 0
    assert structure.criterion.tracker.observations == 2
    assert scaler.get_scale() == 2.0**8


def test_if_one_of_several_optimizers_has_such_a_gradient_none_steps():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizers = [torch.optim.SGD(model[i].parameters(), 0.1) for i in (2, 0)]
    structure = ds.Structure(model, optimizers, example_inputs=(X,), total_steps=9, nonfinite="skip")
    backward(model, optimizers[0])
    model[0].weight.grad[0, 0] = math.inf
    before = everything(model, optimizers)
    with pytest.warns(ds.StructureWarning, match=r"0\.weight"):
        optimizers[0].step()
    optimizers[1].step()
    assert structure.guard.skipped == 1
    assert not differences(before, everything(model, optimizers))


def test_sums_that_overflow_are_no_alarm():
    model, optimizer, structure = made(lambda p: torch.optim.SGD(p, 0.0))
    backward(model, optimizer)
    for each in model.parameters():
        each.grad.fill_(3e38)
    optimizer.step()
    structure.step()


def test_a_loss_that_is_not_finite_while_its_gradients_are_harms_nothing():
    model, optimizer, structure = made(interval=2)
    for _ in range(6):
        optimizer.zero_grad()
        (nn.functional.cross_entropy(model(X), Y) + math.inf).backward()
        optimizer.step()
        structure.step()
    assert structure.criterion.tracker.observations == 3
    assert all(each.isfinite().all() for each in model.state_dict().values())


def test_outputs_that_are_not_finite_now_and_then_do_not_undo_what_is_known():
    class Overflows(nn.Sequential):
        def forward(self, x):
            outputs = super().forward(x)
            return torch.cat([outputs, outputs.detach()[:, :1] * self.factor], 1)  # which no loss looks at

    torch.manual_seed(0)
    model = Overflows(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
    model.factor = 1.0
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    structure = ds.Structure(model, optimizer, example_inputs=(X,), total_steps=200, interval=1)
    tracker = structure.criterion.tracker
    for factor, observations in ((1.0, 1), (1.0, 2), (math.inf, 2), (1.0, 3)):
        model.factor = factor
        optimizer.zero_grad()
        (model(X)[:, :2] - X[:, :2]).square().mean().backward()
        optimizer.step()
        structure.step()
        assert tracker.observations == observations
        assert tracker.fisher["0"].any()


def test_batches_without_gradients_are_steps_from_which_nothing_is_learned():
    model, optimizer, structure = made(interval=2)
    train(model, optimizer, structure, 2)
    optimizer.zero_grad()
    optimizer.step()
    structure.step()
    optimizer.step()
    with pytest.warns(ds.StructureWarning, match="no gradient"):
        structure.step()
    assert structure.criterion.tracker.observations == 1


def test_an_unknown_choice_is_refused():
    with pytest.raises(ds.ConfigurationError, match="'raise', 'skip' or 'ignore', got 'stop'"):
        made(nonfinite="stop")
