"""What a user can ask for where blocks come and go, and what is refused."""

import copy

import pytest
import torch
from torch import nn
from zoo.blocks import VECTORS, MLPBlock, Net, declared

import diffstruct as ds


def made(**options):
    torch.manual_seed(0)
    model = Net()
    options = {"example_inputs": VECTORS, "total_steps": 120, "depth": ["blocks"], **options}
    return ds.Structure(model, torch.optim.AdamW(model.parameters()), **options)


def test_declared_depths_are_learned_without_being_named():
    torch.manual_seed(0)
    model = declared()
    optimizer = torch.optim.Adam(model.parameters())
    structure = ds.Structure(model, optimizer, example_inputs=VECTORS, total_steps=10)
    assert isinstance(structure.widths["1"], ds.Depth)
    assert structure.widths["1"].size == 3


def test_declared_depths_stay_where_the_criterion_does_not_judge_blocks():
    torch.manual_seed(0)
    model = declared()
    optimizer = torch.optim.Adam(model.parameters())
    options = {"example_inputs": VECTORS, "total_steps": 10, "criterion": ds.OutgoingNorm()}
    structure = ds.Structure(model, optimizer, **options)
    assert "1" not in structure.widths
    assert "OutgoingNorm does not judge blocks" in structure.explain()


def test_depths_are_left_alone_by_default():
    torch.manual_seed(0)
    model = Net()
    structure = ds.Structure(
        model, torch.optim.Adam(model.parameters()), example_inputs=VECTORS, total_steps=10, multiple_of=4
    )
    assert not any(isinstance(width, ds.Depth) for width in structure.widths.values())


def test_one_start_and_one_multiple_for_all():
    structure = made(start=4, multiple_of=4)
    assert structure.widths["blocks"].size == 3
    structure = made(start=1)
    assert structure.widths["blocks"].size == 1
    structure = made(rule=ds.Rule(max_units=64, threshold=0.2))
    assert structure.training.rules["blocks"].max_units == 3
    assert structure.training.threshold("blocks") == 0.2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"depth": ["nothing"]}, ds.ConfigurationError, "nothing"),
        ({"start": {"blocks": 4}}, ds.ConfigurationError, "between 1 and the 3 blocks"),
        ({"criterion": ds.OutgoingNorm()}, ds.ConfigurationError, "does not judge blocks"),
        ({"multiple_of": 5, "start": {"blocks": 1}}, ds.ConfigurationError, "multiple"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_has_changed(options, error, message):
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    before, blocks = copy.deepcopy(model.state_dict()), [*model.blocks]
    options = {"example_inputs": VECTORS, "total_steps": 10, "depth": ["blocks"], **options}
    with pytest.raises(error, match=message):
        ds.Structure(model, optimizer, **options)
    assert [*model.blocks] == blocks
    assert model.depth == 3
    assert len(optimizer.param_groups[0]["params"]) == len([*model.parameters()])
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_depth_without_example_inputs_is_refused():
    model = ds.nn.LSTM(3, 4)
    readout = nn.Linear(4, 2)
    model.feeds(readout)
    whole = nn.ModuleList([model, readout, nn.ModuleList([MLPBlock()])])
    with pytest.raises(ds.ConfigurationError, match="give example_inputs"):
        ds.Structure(whole, torch.optim.Adam(whole.parameters()), total_steps=10, depth=["2"])
