"""Objects get their state back, all of them or none, in the right order."""

from __future__ import annotations

import random
from copy import deepcopy

import numpy as np
import pytest
import torch
from helpers.exact import same

import diffstruct as ds
from diffstruct.checkpoint.objects import state_of


def run():
    """A small run, some steps old, with all that has a state."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    objects = {
        "model": model,
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4]),
        "scaler": torch.amp.GradScaler("cpu"),
        "torch_rng": torch.Generator().manual_seed(1),
        "numpy_rng": np.random.default_rng(1),
    }
    return objects


def train(objects, steps):
    """Steps that draw from both generators; return what was lost."""
    losses = []
    for _ in range(steps):
        x = torch.randn(8, 3, generator=objects["torch_rng"]) + objects["numpy_rng"].normal()
        loss = objects["model"](x).square().mean()
        objects["optimizer"].zero_grad()
        objects["scaler"].scale(loss).backward()
        objects["scaler"].step(objects["optimizer"])
        objects["scaler"].update()
        objects["scheduler"].step()
        losses.append(loss.item())
    return losses


def states(objects):
    """The states of all objects."""
    return {name: state_of(item) for name, item in objects.items()}


def test_a_run_that_is_loaded_goes_on_exactly(tmp_path):
    torch.manual_seed(0)
    first = run()
    train(first, 3)
    ds.checkpoint.save(tmp_path, **first, step=3, python=random.getstate())
    losses = train(first, 3)
    torch.manual_seed(1)
    second = run()
    values = ds.checkpoint.load(tmp_path, **second)
    assert values["step"] == 3
    random.setstate(values["python"])
    assert train(second, 3) == losses
    assert same(states(second), states(first))


@pytest.mark.parametrize("kind", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
def test_generators_of_numpy_of_each_kind_go_on(kind, tmp_path):
    first = np.random.Generator(getattr(np.random, kind)(1))
    first.integers(0, 10, 3, dtype=np.int32)
    ds.checkpoint.save(tmp_path, rng=first)
    second = np.random.Generator(getattr(np.random, kind)(2))
    ds.checkpoint.load(tmp_path, rng=second)
    assert first.normal(size=9).tobytes() == second.normal(size=9).tobytes()


def test_a_generator_of_another_kind_is_refused(tmp_path):
    ds.checkpoint.save(tmp_path, rng=np.random.default_rng())
    with pytest.raises(ds.CheckpointError, match="rng is a generator with the bit_generator MT19937"):
        ds.checkpoint.load(tmp_path, rng=np.random.Generator(np.random.MT19937()))


@pytest.mark.parametrize(
    ("kind", "key", "place"), [("MT19937", "pos", 625), ("MT19937", "pos", -1), ("Philox", "buffer_pos", 5)]
)
def test_a_generator_does_not_read_outside_of_its_memory(kind, key, place, tmp_path, monkeypatch):
    generator = np.random.Generator(getattr(np.random, kind)(1))
    state = generator.bit_generator.state
    (state if key in state else state["state"])[key] = place
    with monkeypatch.context() as context:
        context.setattr("diffstruct.checkpoint.checkpoint.state_of", lambda item: state)
        ds.checkpoint.save(tmp_path, rng=generator)
    with pytest.raises(ds.CheckpointError, match=f"impossible state: {key} is {place}"):
        ds.checkpoint.load(tmp_path, rng=generator)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"modle": torch.nn.Linear(1, 1)}, "no modle in the checkpoint: it holds model, step"),
        ({"step": torch.nn.Linear(1, 1)}, "needs a state_dict; a value was saved"),
        ({"model": torch.Generator()}, r"needs a torch.Generator; a state_dict was saved"),
        ({"step": 0}, r"leave it out, and take it from what load returns, load\(\.\.\.\)\['step'\]"),
    ],
)
def test_objects_that_do_not_fit_are_refused_before_any_is_loaded(given, reason, tmp_path):
    ds.checkpoint.save(tmp_path, model=torch.nn.Linear(1, 1), step=1)
    model = torch.nn.Linear(1, 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ds.CheckpointError, match=reason):
        ds.checkpoint.load(tmp_path, **{"model": model, **given})
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_part_of_a_checkpoint_can_be_loaded(tmp_path):
    objects = run()
    ds.checkpoint.save(tmp_path, **objects, epoch=2)
    model = run()["model"]
    assert ds.checkpoint.load(tmp_path, model=model) == {"epoch": 2}
    assert same(model.state_dict(), objects["model"].state_dict())


class Resizing:
    """Brings a model to the size that was saved, as a structure does."""

    loads_first = True

    def __init__(self, model, log):
        self.model, self.log = model, log

    def state_dict(self):
        return {"size": self.model.weight.shape[0]}

    def load_state_dict(self, state):
        self.log.append("structure")
        size = state["size"]
        self.model.weight = torch.nn.Parameter(torch.zeros(size, 3))
        self.model.bias = torch.nn.Parameter(torch.zeros(size))


NO = ValueError("no")


class Refusing:
    """Refuses its state after it has changed; takes back its own."""

    def __init__(self, value, log, error=NO):
        self.value, self.log, self.error = value, log, error

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.log.append("refusing")
        self.value, before = state["value"], self.value
        if before == 1:
            raise self.error


def test_what_resizes_the_others_comes_first_and_generators_last(tmp_path):
    log = []
    small, large = torch.nn.Linear(3, 2), torch.nn.Linear(3, 5)
    rng = torch.Generator().manual_seed(3)
    ds.checkpoint.save(tmp_path, rng=rng, model=small, structure=Resizing(small, log))
    drawn = torch.rand(2, generator=rng)
    other = torch.Generator()
    ds.checkpoint.load(tmp_path, rng=other, model=large, structure=Resizing(large, log))
    assert same(large.state_dict(), small.state_dict())
    assert torch.equal(torch.rand(2, generator=other), drawn)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_if_one_object_refuses_all_are_put_back_sizes_first(error, tmp_path):
    log = []
    small, large = torch.nn.Linear(3, 2), torch.nn.Linear(3, 5)
    optimizer = torch.optim.Adam(large.parameters())
    rng = torch.Generator().manual_seed(4)
    other_optimizer = torch.optim.Adam(small.parameters(), lr=1.0)
    saved = {"model": small, "structure": Resizing(small, log), "optimizer": other_optimizer}
    ds.checkpoint.save(tmp_path, **saved, last=Refusing(0, log), rng=torch.Generator())
    large(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    given = {"model": large, "structure": Resizing(large, log), "optimizer": optimizer}
    given |= {"last": Refusing(1, log, error), "rng": rng}
    before = deepcopy(states(given))
    with pytest.raises((ds.CheckpointError, KeyboardInterrupt)) as raised:
        ds.checkpoint.load(tmp_path, **given)
    if isinstance(error, ValueError):
        assert "last refuses what was saved, and all objects are as before (ValueError: no)" in str(
            raised.value
        )
    else:
        assert raised.type is KeyboardInterrupt
    assert log == ["structure", "refusing", "structure", "refusing"]
    assert given["last"].value == 1
    assert same(states(given), before)


def test_all_that_a_run_has_is_put_back(tmp_path):
    torch.manual_seed(0)
    saved, given = run(), run()
    train(saved, 3)
    train(given, 2)
    ds.checkpoint.save(tmp_path, **saved, last=Refusing(0, []))
    before = deepcopy(states(given))
    with pytest.raises(ds.CheckpointError, match="last refuses"):
        ds.checkpoint.load(tmp_path, **given, last=Refusing(1, []))
    assert same(states(given), before)


def test_a_model_of_another_shape_is_refused_and_stays_as_it_was(tmp_path):
    ds.checkpoint.save(tmp_path, model=torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)))
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ds.CheckpointError, match=r"size mismatch for 1\.weight"):
        ds.checkpoint.load(tmp_path, model=model)
    for name, tensor in model.state_dict().items():
        assert same(tensor, before[name])


def test_an_object_that_cannot_be_put_back_is_named(tmp_path):
    class Broken(Refusing):
        def load_state_dict(self, state):
            raise self.error

    ds.checkpoint.save(tmp_path, one=Broken(0, []))
    with pytest.raises(ds.CheckpointError, match=r"these could not be put back: \{'one': 'ValueError: no'\}"):
        ds.checkpoint.load(tmp_path, one=Broken(0, []))
