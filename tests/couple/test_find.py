"""Finding widths: what users ask for, what is returned, and what is refused."""

import copy

import pytest
import torch
from helpers.any_module import X, mlp
from torch import nn
from zoo import CASES
from zoo.checks import assert_same, assert_unchanged, outputs_of, silent_units_come_and_go, snapshot

import diffstruct as ds
from diffstruct.couple.call import OP_RULES


def test_found_widths_print_as_a_table():
    assert str(ds.find_widths(mlp(), (X,), exclude=["2"])).splitlines() == [
        "width  units  places",
        "0      16     0.weight[dim 0], 0.bias[dim 0], 2.weight[dim 1]",
        "",
        "not learned:",
        "0.weight[1] (5): is a dimension of the input",
        "4.weight[0], 4.bias[0] (3): is a dimension of the output",
        "2.weight[0], 2.bias[0], 4.weight[1] (12): is excluded by name",
    ]


def test_a_width_can_be_refused_afterwards():
    found = ds.find_widths(mlp(), (X,))
    found.refuse("0", "is not wanted")
    assert [*found.widths] == ["2"]
    assert found.explain().splitlines()[-1] == "0.weight[0], 0.bias[0], 2.weight[1] (16): is not wanted"


def test_a_model_without_widths_is_no_error():
    found = ds.find_widths(nn.Linear(5, 3), (X,))
    assert found.widths == {}
    assert len(found.refused) == 2


def test_inputs_by_name_and_a_compiled_model():
    model = mlp()
    assert [*ds.find_widths(model, {"input": X}).widths] == ["0", "2"]
    found = ds.find_widths(torch.compile(model, backend="eager"), (X,))
    assert found.model is model
    assert [*found.widths] == ["0", "2"]


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_pattern_that_matches_no_name_is_refused_with_all_names(option):
    with pytest.raises(ds.ConfigurationError, match=rf"{option} has 'encoder\.\*', but .*\['0', '2'\]"):
        ds.find_widths(mlp(), (X,), **{option: ["encoder.*"]})


class Literal(nn.Module):
    """The size of its first layer stands in the code."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)).view(-1, 6))))


def test_a_pattern_may_name_a_width_that_is_refused():
    assert [*ds.find_widths(Literal(), (X,), exclude=["a"]).widths] == ["b"]
    assert [*ds.find_widths(Literal(), (X,), include=["a"]).widths] == []


def test_declared_widths_are_found_without_example_inputs():
    layer, readout = ds.nn.GRU(3, 6), nn.Linear(6, 2)
    layer.feeds(readout)
    model = nn.Sequential(layer, readout)
    found = ds.find_widths(model)
    assert {name: width.size for name, width in found.widths.items()} == {"0": 6}
    assert found.proof is None
    found = ds.find_widths(model, exclude=["0"])
    assert found.widths == {}
    assert found.refused[0].reason == "is excluded by name"
    with pytest.raises(ds.ConfigurationError, match=r"include has 'rnn', but the widths are \['0'\]"):
        ds.find_widths(model, include=["rnn"])
    with pytest.raises(ds.StructureError, match="give example_inputs"):
        ds.find_widths(mlp())


def test_what_was_found_is_copied_with_its_model():
    model = mlp()
    found = ds.find_widths(model, (X,))
    twin, copied = copy.deepcopy((model, found))
    assert copied.model is twin
    with torch.no_grad():
        twin[0].weight.mul_(2)
    torch.testing.assert_close(copied.proof.outputs()[0], twin(X), rtol=0, atol=0)
    torch.testing.assert_close(found.proof.outputs()[0], model(X), rtol=0, atol=0)
    before = snapshot(model)
    silent_units_come_and_go(twin, (X,), copied.widths.values())
    copied.proof.runs([])
    assert_unchanged(model, before)


class Forces(nn.Module):
    """The negative gradient of an energy, as in models of molecules."""

    def __init__(self):
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, x):
        x = x.detach().requires_grad_()
        energy = self.energy(x).sum()
        (gradient,) = torch.autograd.grad(energy, x, create_graph=self.training)
        return energy, -gradient


@pytest.mark.parametrize("training", [True, False])
def test_widths_of_a_model_that_needs_gradients_are_found(training):
    torch.manual_seed(0)
    model = Forces().train(training)
    found = ds.find_widths(model, (X,))
    assert {name: width.size for name, width in found.widths.items()} == {"energy.0": 8, "energy.2": 6}
    assert not any(output.requires_grad for output in found.proof.expected)


# Rules for operators that are wrong


def test_a_rule_that_fails_costs_a_width_and_is_not_silent(monkeypatch):
    def wrong(call):
        raise IndexError("no such dimension")

    monkeypatch.setitem(OP_RULES, "relu", wrong)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    with pytest.warns(ds.StructureWarning, match=r"rule for the operator relu failed \(IndexError: no such"):
        found = ds.find_widths(model, (X,))
    assert [*found.widths] == ["2"]
    assert "for which diffstruct's rule failed (IndexError: no such dimension)" in found.explain()


def test_a_rule_that_gives_wrong_sizes_costs_a_width(monkeypatch):
    monkeypatch.setitem(OP_RULES, "relu", lambda call: [call.dims(call.args[0])[:1]])
    with pytest.warns(
        ds.StructureWarning, match=r"it gives sizes \[\[32\]\] to results of shape \[\[32, 16\]\]"
    ):
        assert ds.find_widths(mlp(), (X,)).widths == {}


def test_an_operator_that_fails_is_the_models_error():
    with pytest.raises(ds.StructureError, match=r"in evaluation mode .* mat1 and mat2 shapes"):
        ds.find_widths(mlp(), (X[:, :2],))


# Widths of one unit


NEEDS_MORE = {"lstm_projected"}  # `proj_size` must be smaller than `hidden_size`
ONE_UNIT_CASES = [case for case in CASES if case.rebuild and case.units and case.name not in NEEDS_MORE]


@pytest.mark.parametrize("case", ONE_UNIT_CASES, ids=lambda case: case.name)
def test_widths_of_one_unit_that_are_found_are_right(case):
    torch.manual_seed(0)
    inputs = case.inputs()
    model = case.rebuild(dict.fromkeys(range(len(case.units)), 1))
    expected = outputs_of(model, inputs)
    found = ds.find_widths(model, inputs)
    assert_same(outputs_of(model, inputs), expected, rtol=0)
    silent_units_come_and_go(model, inputs, found.widths.values())


@pytest.mark.parametrize("layer", [nn.RNN, nn.GRU, nn.LSTM, ds.nn.GRU])
def test_one_unit_of_a_recurrent_layer_is_found(layer):
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = layer(5, 1, batch_first=True), nn.Linear(1, 3)

        def forward(self, x):
            return self.out(self.rnn(x)[0])

    found = ds.find_widths(Tagger(), (torch.randn(4, 7, 5),))
    assert {name: width.size for name, width in found.widths.items()} == {"rnn": 1}
    assert len(found.widths["rnn"].slots) == 6


def test_one_unit_of_an_mlp_is_found_under_the_same_name_as_more():
    assert [*ds.find_widths(mlp((1, 1)), (X,)).widths] == [*ds.find_widths(mlp(), (X,)).widths]


def test_one_unit_that_cannot_be_found_is_refused_with_what_to_do():
    model = nn.Sequential(nn.Conv1d(3, 1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 2))
    found = ds.find_widths(model, (torch.randn(2, 3, 8),))
    assert found.widths == {}
    (refusal,) = [each for each in found.refused if each.size == 1]
    assert refusal.places[:2] == ("0.weight[0]", "0.bias[0]")
    assert "has one unit, which cannot be told from broadcasting" in refusal.reason
    assert "Structure(widths=...), or keep min_units=2" in refusal.reason


@pytest.mark.parametrize("dims", [(2, 3), (-1, -2)])
def test_channels_behind_a_mean_over_space_are_found(dims):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.out = nn.Conv2d(3, 6, 3), nn.Linear(6, 2)

        def forward(self, x):
            return self.out(self.conv(x).relu().mean(dims))

    model, x = Pooled(), torch.randn(2, 3, 8, 8)
    found = ds.find_widths(model, (x,))
    assert {name: width.size for name, width in found.widths.items()} == {"conv": 6}
    silent_units_come_and_go(model, (x,), found.widths.values())


def test_channels_that_are_pooled_over_are_listed_with_the_reason():
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.LocalResponseNorm(3), nn.Conv2d(8, 3, 3))
    found = ds.find_widths(model, (torch.randn(2, 4, 8, 8),))
    assert not found.widths
    assert "0.weight[0], 0.bias[0], 2.weight[1] (8): is spatial in 1 (LocalResponseNorm)" in found.explain()
    assert "(3): is the size of a kernel" not in found.explain()


@pytest.mark.parametrize(("vocabulary", "held"), [(12, {"inner"}), (9, {"inner", "inner_size"})])
def test_an_integer_that_is_as_large_as_something_else_does_not_follow(vocabulary, held):
    """Such as the size of a vocabulary, which lies in another layer than the width that is as large."""

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.vocabulary_size = vocabulary
            self.inner_size = 12
            self.embedding, self.readout = nn.Embedding(vocabulary, 6), nn.Linear(6, vocabulary)
            self.mlp = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))
            self.mlp.inner = 12

        def forward(self, tokens):
            return self.readout(self.mlp(self.embedding(tokens)))

    found = ds.find_widths(Reader(), (torch.arange(4),), include=["mlp.0"])
    names = {each.name for each in found.widths["mlp.0"].attributes}
    assert names - {"in_features", "out_features"} == held


def test_what_is_added_in_place_to_a_stream_that_is_normalised_belongs_to_it():
    class Places(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = nn.Embedding(20, 16), nn.Embedding(6, 16)
            self.norm, self.readout = nn.LayerNorm(16), nn.Linear(16, 3)

        def forward(self, words):
            stream = self.words(words)
            stream += self.places.weight
            return self.readout(self.norm(stream))

    torch.manual_seed(0)
    found = ds.find_widths(Places(), (torch.randint(20, (4, 6)),))
    assert {name: width.size for name, width in found.widths.items()} == {"words": 16}
