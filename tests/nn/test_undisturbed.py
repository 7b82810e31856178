"""A run leaves modes, buffers and random numbers as they were."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from diffstruct.nn.undisturbed import undisturbed


def test_the_random_numbers_of_other_devices_are_not_touched(monkeypatch):
    def forbidden(*args):
        raise AssertionError("seeds a device that the model is not on")

    for name in ("manual_seed", "manual_seed_all", "seed", "seed_all", "set_rng_state", "set_rng_state_all"):
        monkeypatch.setattr(torch.cuda, name, forbidden)
    model, before, drawn = nn.Linear(2, 2), torch.get_rng_state(), []
    for _ in range(2):
        with undisturbed(model):
            drawn.append(torch.rand(3))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*drawn)


@pytest.mark.parametrize("fails", [False, True])
def test_modes_and_buffers_are_restored(fails):
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()).train()
    model[1].eval()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    chance = torch.get_rng_state()
    try:
        with undisturbed(model, training=True):
            model(torch.rand(8, 3))
            assert model[0].num_batches_tracked == 1
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert [module.training for module in model] == [True, False]
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert torch.equal(torch.get_rng_state(), chance)


def test_python_and_numpy_draw_the_same_in_each_run_and_go_on_as_if_there_was_none():
    class Drawing(nn.Module):
        def forward(self):
            return random.random(), np.random.rand()  # noqa: NPY002

    model = Drawing()
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    expected = model()
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    drawn = []
    for _ in range(2):
        with undisturbed(model):
            drawn.append(model())
    assert drawn[0] == drawn[1]
    assert model() == expected


def test_all_modules_are_in_evaluation_mode_unless_training_is_asked_for():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    with undisturbed(model):
        assert not any(module.training for module in model.modules())
    assert all(module.training for module in model.modules())
