"""Finish: a plain model comes out, or, with an error, nothing has changed."""

import copy

import pytest
import torch
from torch import nn

import diffstruct as ds

X = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0))


class Tagger(nn.Module):
    """A bidirectional layer whose output goes through a multiplier of both directions."""

    def __init__(self, past_the_multiplier=False):
        super().__init__()
        self.rnn = nn.GRU(3, 5, bidirectional=True)
        self.multiplier = ds.nn.Multiplier(10)
        self.readout, self.other = nn.Linear(10, 2), nn.Linear(10, 2)
        self.past = past_the_multiplier

    def forward(self, x):
        hidden = self.rnn(x)[0]
        output = self.readout(self.multiplier(hidden))
        return output + self.other(hidden) if self.past else output + self.other(self.multiplier(hidden))


def structured(model, criterion, **options):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    options = {"example_inputs": (X,), "total_steps": 500, "start": None, **options}
    return optimizer, ds.Structure(model, optimizer, criterion=criterion, **options)


def train(model, optimizer, structure, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model(X).square().sum().backward()
        optimizer.step()
        structure.step()


def everything(model, optimizer, structure):
    sizes = {name: width.size for name, width in structure.widths.items()}
    return copy.deepcopy((model.state_dict(), optimizer.state_dict(), sizes))


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("criterion", [ds.Multipliers(), ds.TaylorImportance()])
def test_multipliers_of_both_directions_are_folded_into_what_reads_them(criterion):
    torch.manual_seed(0)
    model = Tagger()
    optimizer, structure = structured(model, criterion, rule=ds.Rule(min_units=5))
    train(model, optimizer, structure, 20)
    with torch.no_grad():
        model.multiplier.weight.copy_(torch.linspace(0.5, 2, model.multiplier.num_units))
        structure.widths["rnn"].check_lengths()
    threshold = structure.training.threshold("rnn")
    silent = (structure.criterion.importance(structure.widths["rnn"]) <= threshold).nonzero().flatten()
    for unit in silent.tolist():  # finish removes them: let that change nothing
        width = structure.widths["rnn"].size
        with torch.no_grad():
            for reader in (model.readout, model.other):
                reader.weight[:, [unit, width + unit]] = 0
            model.rnn.weight_hh_l0[:, unit] = model.rnn.weight_hh_l0_reverse[:, unit] = 0
    before = model(X)
    plain = structure.finish()
    assert isinstance(plain.multiplier, nn.Identity)
    torch.testing.assert_close(plain(X), before)


def test_a_multiplier_that_cannot_be_folded_leaves_everything_as_it_was_and_training_goes_on():
    torch.manual_seed(0)
    model = Tagger(past_the_multiplier=True)
    optimizer, structure = structured(model, ds.Multipliers(), start=2)
    train(model, optimizer, structure, 40)
    with torch.no_grad():
        model.multiplier.weight.mul_(1.5)
    before, events = everything(model, optimizer, structure), [*structure.history.events]
    with pytest.raises(ds.StructureError, match="let all read through it"):
        structure.finish()
    assert_equal(everything(model, optimizer, structure), before)
    assert structure.history.events == events
    assert isinstance(model.multiplier, ds.nn.Multiplier)
    train(model, optimizer, structure, 3)
    assert structure.steps == 43


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))


@pytest.mark.parametrize("criterion", [ds.Multipliers(), ds.OutgoingNorm(), ds.TaylorImportance()])
def test_the_optimizer_holds_what_the_plain_model_has_and_nothing_else(criterion):
    model = mlp()
    optimizer, structure = structured(model, criterion)
    train(model, optimizer, structure, 10)
    plain = structure.finish()
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in plain.parameters()}
    assert {id(p) for p in optimizer.state} <= {id(p) for p in held}
    assert not optimizer._optimizer_step_pre_hooks
    assert not any(p._post_accumulate_grad_hooks for p in plain.parameters())
    assert not any("parametrizations" in name for name, _ in plain.named_modules())
    optimizer.zero_grad()
    plain(X).square().sum().backward()
    optimizer.step()


def test_the_weight_of_a_multiplier_module_leaves_the_optimizer_with_it():
    model = Tagger()
    optimizer, structure = structured(model, ds.Multipliers())
    weight = model.multiplier.weight
    train(model, optimizer, structure, 2)
    structure.finish()
    assert not any(p is weight for group in optimizer.param_groups for p in group["params"])
    assert weight not in optimizer.state


@pytest.mark.parametrize("criterion", [ds.Multipliers(), ds.OutgoingNorm(), ds.TaylorImportance()])
def test_what_is_printed_and_recorded_after_finish_is_the_plain_model(criterion):
    model = mlp()
    optimizer, structure = structured(model, criterion)
    train(model, optimizer, structure, 30)
    plain = structure.finish()
    sizes = {"0": plain[0].out_features, "2": plain[2].out_features}
    for row in str(structure).splitlines()[3:]:
        name, units, reserve, added, removed = row.split()[:5]
        assert (int(units), reserve) == (sizes[name], "0")
        start = 8 if name == "0" else 6
        assert start + int(added) - int(removed) == sizes[name]
    with pytest.raises(ds.StructureError, match="finished already"):
        structure.finish()


@pytest.mark.parametrize("criterion", [ds.Multipliers(), ds.OutgoingNorm(ds.L1Price(0.0))])
def test_a_multiplier_on_no_learned_width_stays(criterion):
    torch.manual_seed(0)
    model = nn.Sequential(
        ds.nn.Multiplier(3), nn.Linear(3, 8), nn.ReLU(), ds.nn.Multiplier(8), nn.Linear(8, 2)
    )
    with torch.no_grad():
        for index in (0, 3):
            model[index].weight.uniform_(0.5, 2.0)
    optimizer, structure = structured(model, criterion)
    before = model(X)
    plain = structure.finish()
    assert isinstance(plain[0], ds.nn.Multiplier)
    assert isinstance(plain[3], nn.Identity)
    torch.testing.assert_close(plain(X), before)
    assert any(p is plain[0].weight for group in optimizer.param_groups for p in group["params"])


@pytest.mark.parametrize("criterion", [ds.Multipliers(), ds.OutgoingNorm()])
def test_a_model_that_has_diverged_is_not_cut(criterion):
    model = mlp()
    _, structure = structured(model, criterion)
    with torch.no_grad():
        for width in structure.widths.values():
            for slot in width.having(ds.Role.OUTGOING, ds.Role.MULTIPLIER):
                slot.tensor.fill_(torch.nan)
    with pytest.raises(ds.DivergenceError, match="not finite"):
        structure.finish()
    assert [width.size for width in structure.widths.values()] == [8, 6]


def test_a_hidden_state_is_carried_through_finish():
    rnn, readout = ds.nn.RNN(3, 4), nn.Linear(4, 2)
    rnn.feeds(readout)
    model = nn.ModuleList([rnn, readout])
    structure = ds.Structure(
        model,
        torch.optim.Adam(model.parameters()),
        total_steps=10,
        criterion=ds.OutgoingNorm(),
        start=None,
    )
    with torch.no_grad():
        readout.weight[:, [0, 2]] = rnn.weight_hh_l0[:, [0, 2]] = 0
    structure.finish()
    assert structure.carry(torch.arange(4.0).view(1, 4)).tolist() == [[1.0, 3.0]]
