"""Structure on models that know nothing of it: growth, and what else a training loop has."""

import math

import pytest
import torch
from helpers.any_module import STILL, X, Y, branches, learn, mlp, sizes, structured
from torch import nn
from torch._dynamo.utils import counters
from torch.optim.swa_utils import AveragedModel

import diffstruct as ds
from diffstruct.rule import RuleState


def test_a_width_is_reached_in_few_events():
    rule = ds.Rule(threshold=1e-9, reserve=0.25, p_add=1, p_delete=0, p_spontaneous=0, max_units=512)
    free = ds.OutgoingNorm(ds.L1Price(0))
    model, _, structure = structured(mlp((16,)), torch.optim.SGD, 0.0, rule=rule, criterion=free)
    with torch.no_grad():
        for _ in range(math.ceil(math.log(512, 1.25)) + 5):
            for p in model.parameters():
                p.add_(1.0)  # every unit rises above the threshold
            structure.step()
    assert structure.widths["0"].size == 512


def test_decisions_are_made_at_multiples_of_the_interval():
    model, optimizer, structure = structured(interval=7)
    learn(model, optimizer, structure, 70)
    steps = {event.step for event in structure.history.events}
    assert steps
    assert all(step % 7 == 0 for step in steps)
    assert structure.steps == 70
    with pytest.raises(ds.ConfigurationError, match="interval must be a whole number of steps from 1"):
        structured(interval=0)


def test_the_price_is_the_same_whatever_the_interval():
    results, criterion = [], ds.OutgoingNorm(ds.L1Price(1e-3))
    for interval in (1, 5):
        model, optimizer, structure = structured(
            None, torch.optim.SGD, 0.0, rule=STILL, interval=interval, start=None, criterion=criterion
        )
        learn(model, optimizer, structure, 20)
        results.append([p.clone() for p in model.parameters()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(results[0][0], mlp()[0].weight)  # these weights read no unit, and have no price
    assert not torch.equal(results[0][2], mlp()[2].weight)


def test_only_weights_that_read_learned_units_have_a_price():
    model, _, structure = structured(
        branches(), torch.optim.SGD, 0.0, rule=STILL, start=None, include=["left"]
    )
    before = model.middle.weight.detach().clone()
    structure.step()
    assert torch.equal(model.middle.weight[:, 6:], before[:, 6:])  # which read the right branch
    assert (model.middle.weight[:, :6].abs() < before[:, :6].abs()).all()
    assert torch.equal(model.out.weight, branches().out.weight)


def test_schedulers_scalers_autocast_accumulation_and_frozen_parameters():
    model = mlp()
    model[0].bias.requires_grad_(False)
    model, optimizer, structure = structured(model, torch.optim.AdamW)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=40)
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(40):
        for part in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(model(X[part::2]), Y[part::2])
            scaler.scale(loss / 2).backward()
        scaler.step(optimizer)
        scaler.update()
        structure.step()
        assert all(p.grad is None or p.grad.shape == p.shape for p in model.parameters())
        optimizer.zero_grad()
        scheduler.step()
    assert structure.history.events
    assert model[0].bias.shape == (structure.widths["0"].size,)
    assert not model[0].bias.requires_grad


def test_gradients_that_are_being_accumulated_survive_an_event():
    model, optimizer, structure = structured(start=None)
    nn.functional.cross_entropy(model(X), Y).backward()
    before = model[0].weight.grad.clone()
    structure.carry_out(
        {
            "0": ds.Decision(16, tuple(range(1, 16)), 2, RuleState.initial(17)),
            "2": ds.Decision(12, tuple(range(12)), 0, RuleState.initial(12)),
        }
    )
    assert torch.equal(model[0].weight.grad[:15], before[1:])
    assert not model[0].weight.grad[15:].any()
    nn.functional.cross_entropy(model(X), Y).backward()
    optimizer.step()


def test_averages_follow():
    model, optimizer, structure = structured(start=4)
    average = AveragedModel(model, use_buffers=True)
    structure.follow(average)
    learn(model, optimizer, structure, 40, check=lambda: average.update_parameters(model))
    assert structure.history.events
    for mine, theirs in zip(model.parameters(), average.module.parameters(), strict=True):
        assert mine.shape == theirs.shape
        assert mine is not theirs
    assert repr(average.module) == repr(model)
    average(X)
    with pytest.raises(ds.StructureError, match="copy the model after Structure is made"):
        structure.follow(mlp())


def test_an_average_keeps_what_survives():
    model, _, structure = structured(start=None)
    average = AveragedModel(model)
    structure.follow(average)
    with torch.no_grad():
        for p in average.parameters():
            p.add_(1.0)
    old = average.module[2].weight.clone()
    structure.carry_out(
        {
            "0": ds.Decision(16, tuple(range(2, 16)), 3, RuleState.initial(17)),
            "2": ds.Decision(12, tuple(range(12)), 0, RuleState.initial(12)),
        }
    )
    assert torch.equal(average.module[2].weight[:, :14], old[:, 2:])
    assert torch.equal(average.module[2].weight[:, 14:], model[2].weight[:, 14:])


def test_others_go_on_seeing_the_live_parameters():
    model, optimizer, structure = structured()
    mine = {name: id(p) for name, p in model.named_parameters()}
    kept = model[0].weight
    learn(model, optimizer, structure)
    assert {name: id(p) for name, p in model.named_parameters()} == mine
    assert kept is model[0].weight
    assert kept.shape[0] == structure.widths["0"].size > 1


def test_a_compiled_model_stays_right_and_is_compiled_once_a_size():
    torch._dynamo.reset()
    counters.clear()
    model = mlp((32, 32))
    compiled = torch.compile(model, backend="aot_eager", dynamic=False)
    model, optimizer, structure = structured(model, run=compiled, multiple_of=32)
    seen = set()

    def check():
        seen.add(tuple(sizes(structure).values()))
        torch.testing.assert_close(compiled(X), model(X))

    learn(model, optimizer, structure, 40, run=compiled, check=check)
    assert len(seen) > 1
    # Twice a size at most: with gradients, and where there are none.
    assert counters["stats"]["unique_graphs"] <= 2 * len(seen)
    assert structure.finish() is model


def test_the_same_seed_gives_the_same_run():
    runs = []
    for _ in range(2):
        model, optimizer, structure = structured(seed=3)
        learn(model, optimizer, structure, 50)
        runs.append(([p.clone() for p in model.parameters()], structure.history.events))
    assert runs[0][1] == runs[1][1]
    assert all(torch.equal(one, other) for one, other in zip(runs[0][0], runs[1][0], strict=True))
