"""Weights that are loaded before there is a structure."""

import pytest
import torch
from helpers.exact import same
from torch import nn

import diffstruct as ds
from diffstruct.integrations.before_load import HeldBack, take_sizes

X = torch.ones(16, 5)


def build(units=8):
    return nn.Sequential(nn.Linear(5, units), nn.ReLU(), nn.Linear(units, 3))


def structure_of(model):
    optimizer = torch.optim.Adam(model.parameters())
    return ds.Structure(model, optimizer, example_inputs=(X,), total_steps=100)


def test_weights_come_behind_the_structure_whatever_their_sizes():
    weights, saved = build(5).state_dict(), None
    for shards in ([weights], [{key: each} for key, each in weights.items()]):
        model = build()
        before = model.state_dict()
        held = HeldBack(model, True)
        for shard in shards:
            model.load_state_dict(shard, strict=False)
        assert held.waiting
        assert same({**model.state_dict()}, {**before})
        structure = structure_of(model)
        held.deliver(structure, saved)
        assert same({**model.state_dict()}, {**weights})
        assert structure.widths["0"].size == 5


def test_weights_that_fit_are_loaded_at_once():
    model, weights = build(), build().state_dict()
    held = HeldBack(model, True)
    model.load_state_dict(build(5).state_dict())
    assert held.waiting
    model.load_state_dict(weights)
    assert not held.waiting
    assert same({**model.state_dict()}, {**weights})


def test_weights_within_another_module_and_none_at_all():
    model = build()
    held = HeldBack(model, True)
    whole = nn.ModuleDict({"inner": model})
    whole.load_state_dict({f"inner.{key}": each for key, each in build(3).state_dict().items()})
    held.deliver(structure_of(model), None)
    assert model[0].out_features == 3
    other = build()
    HeldBack(other, True).deliver(structure_of(other), None)
    assert not any(hook.hook is held for hook in model._load_state_dict_pre_hooks.values())


@pytest.mark.parametrize("change", [{"2.bias": None}, {"more": torch.ones(2)}])
def test_weights_of_another_model_are_refused_or_warned_of(change):
    weights = {**build(5).state_dict(), **change}
    weights = {key: each for key, each in weights.items() if each is not None}
    model = build()
    held = HeldBack(model, True)
    model.load_state_dict(weights)
    with pytest.raises(ds.CheckpointError, match="of the model the checkpoint lacks"):
        held.deliver(structure_of(model), None)
    model = build()
    held = HeldBack(model, False)
    model.load_state_dict(weights, strict=False)
    with pytest.warns(ds.StructureWarning, match="of the model the checkpoint lacks"):
        held.deliver(structure_of(model), None)


def test_weights_and_state_must_be_of_one_step():
    model = build()
    held = HeldBack(model, True)
    model.load_state_dict(build(5).state_dict())
    structure = structure_of(model)
    with pytest.raises(ds.CheckpointError, match=r"not of one step: 0.weight has shape \[8, 5\]"):
        held.deliver(structure, structure_of(build()).state_dict())


def test_a_model_that_is_not_trained_takes_on_sizes_once():
    whole = nn.ModuleDict({"inner": build(), "other": nn.Linear(2, 2)})
    weights = nn.ModuleDict({"inner": build(6), "other": nn.Linear(2, 2)}).state_dict()
    take_sizes(whole, "inner", (X,))
    whole.load_state_dict(weights)
    assert same({**whole.state_dict()}, {**weights})
    with pytest.raises(RuntimeError, match="size mismatch"):
        whole["inner"].load_state_dict(build(3).state_dict())
