"""A recurrent layer as a plain `torch.nn` module, and copies of it."""

import copy
import io
import pickle

import pytest
import torch
from helpers.recurrent import BATCH, EVERY_KIND, INPUTS, STEPS, UNITS, assert_same, flat, normal, pair, weigh
from torch import nn


@EVERY_KIND
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 3, "bias": False},
        {"bidirectional": True, "batch_first": True, "num_layers": 2, "dropout": 0.25},
        {"dtype": torch.float32},
    ],
    ids=str,
)
def test_to_torch_gives_the_plain_module(kind, options):
    ours, theirs = pair(kind, **options)
    ours.eval()
    ours.weight_hh_l0.requires_grad_(False)
    randomness = torch.get_rng_state()
    plain = ours.to_torch()
    assert torch.equal(torch.get_rng_state(), randomness)

    assert type(plain) is type(theirs)
    assert repr(plain) == repr(theirs) == repr(ours)
    assert plain.training is False
    assert ours.train().to_torch().training is True
    assert vars(plain).keys() == vars(theirs).keys()  # no attribute of ours is left
    for name, parameter in ours.named_parameters():
        copied = getattr(plain, name)
        assert isinstance(copied, nn.Parameter)
        assert torch.equal(copied, parameter)
        assert copied.dtype == parameter.dtype
        assert copied.requires_grad == (name != "weight_hh_l0")
    x = normal(STEPS, BATCH, INPUTS, dtype=options.get("dtype", torch.float64))
    assert_same(plain(x), theirs.eval()(x), rtol=0, atol=0)


@EVERY_KIND
def test_to_torch_copies(kind):
    ours, _ = pair(kind)
    plain, before = ours.to_torch(), copy.deepcopy(ours.state_dict())
    optimizer = torch.optim.SGD(plain.parameters(), lr=1.0)
    x = normal(STEPS, BATCH, INPUTS)
    weigh(flat(plain(x))).backward()
    optimizer.step()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert not torch.equal(tensor, plain.state_dict()[name])
        assert getattr(ours, name).grad is None


class Model(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = pair(kind)[0]
        self.readout = nn.Linear(UNITS, 2, dtype=torch.float64)
        self.rnn.feeds(self.readout)

    def forward(self, x):
        return self.readout(self.rnn(x)[0])


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def through_torch_save(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@EVERY_KIND
@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle, through_torch_save])
def test_a_copy_is_complete_and_independent(kind, duplicate):
    model = Model(kind)
    twin = duplicate(model)
    x = normal(STEPS, BATCH, INPUTS)
    assert_same(twin(x), model(x), rtol=0, atol=0)
    modules = {slot.module for slot in twin.rnn.declare_width("rnn").slots}
    assert modules == {twin.rnn, twin.readout}  # its own readout, not the first model's
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert model(x).abs().sum() > 0


@EVERY_KIND
def test_state_dicts_are_interchangeable(kind):
    ours, theirs = pair(kind, num_layers=2, bidirectional=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(2)
    ours.load_state_dict(theirs.state_dict())
    x = normal(STEPS, BATCH, INPUTS)
    assert_same(ours(x), theirs(x))


@EVERY_KIND
def test_readers_are_not_submodules(kind):
    model = Model(kind)
    assert list(model.rnn.children()) == []
    assert repr(model.rnn) == repr(pair(kind)[1])
