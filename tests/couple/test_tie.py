"""Tied widths: several layers with one size."""

import re

import numpy as np
import pytest
import torch
from helpers.any_module import EAGER, X, learn, structured
from torch import nn
from zoo import libraries

import diffstruct as ds
from diffstruct.surgery import operate


class Block(nn.Module):
    def __init__(self, hidden=6):
        super().__init__()
        self.up, self.down = nn.Linear(5, hidden), nn.Linear(hidden, 5)

    def forward(self, x):
        return x + self.down(self.up(x).relu())


def blocks(*hidden):
    torch.manual_seed(0)
    return nn.Sequential(*map(Block, hidden), nn.Linear(5, 3))


def test_what_a_pattern_matches_becomes_one_width_under_its_name():
    model = blocks(6, 6, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = ds.find_widths(model, (X,), tie=["[01].up"])
    assert {name: width.size for name, width in found.widths.items()} == {"[01].up": 6, "2.up": 4}
    assert re.split(" {2,}", str(found).splitlines()[1])[2:] == [
        "0.up.weight[dim 0], 0.up.bias[dim 0], 0.down.weight[dim 1], "
        "1.up.weight[dim 0], 1.up.bias[dim 0], 1.down.weight[dim 1]"
    ]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_units_of_all_layers_go_and_come_together():
    model = blocks(6, 6)
    width = ds.find_widths(model, (X,), tie=["*.up"]).widths["*.up"]
    weights = [block.up.weight.detach().clone() for block in (model[0], model[1])]
    operate([ds.Change(width, (0, 2, 5), 1)])
    for block, before in zip(model, weights, strict=False):
        assert torch.equal(block.up.weight[:3], before[[0, 2, 5]])
        assert (block.up.out_features, block.down.in_features, *block.down.weight.shape) == (4, 4, 5, 4)
    assert model(X).shape == (32, 3)


def test_a_unit_counts_and_costs_in_all_layers():
    model = blocks(6, 6)
    apart, tied = ds.find_widths(model, (X,)), ds.find_widths(model, (X,), tie=["*.up"])
    for cost in (ds.ParameterCount(model, apart.widths), ds.MultiplyAdds(apart)):
        both = (
            ds.ParameterCount(model, tied.widths)
            if isinstance(cost, ds.ParameterCount)
            else ds.MultiplyAdds(tied)
        )
        assert both({"*.up": 4}) == cost({"0.up": 4, "1.up": 4})
    optimizer = torch.optim.Adam(model.parameters())
    importance = {}
    for found in (apart, tied):
        criterion = ds.OutgoingNorm()
        structure = ds.Structure(model, optimizer, widths=found, total_steps=10, criterion=criterion)
        for name, width in structure.widths.items():
            importance[name] = structure.criterion.importance(width)
    torch.testing.assert_close(importance["*.up"], importance["0.up"] + importance["1.up"])


def test_the_derivatives_of_all_layers_add_up():
    slopes = {}
    for tie in ([], ["*.up"]):
        model, optimizer, structure = structured(
            blocks(6, 6), criterion=ds.TaylorImportance(), tie=tie, start=None, rule=ds.Rule()
        )
        learn(model, optimizer, structure, 5)
        slopes |= structure.criterion.tracker.mean_slopes
    np.testing.assert_allclose(slopes["*.up"], slopes["0.up"] + slopes["1.up"], rtol=1e-5, atol=1e-9)
    assert np.abs(slopes["0.up"]).max() > 0


@pytest.mark.parametrize(
    "criterion", [ds.TaylorImportance(), ds.OutgoingNorm(), ds.Multipliers(ds.L1Price(1e-2))]
)
def test_layers_stay_equal_while_they_are_learned(criterion):
    model, optimizer, structure = structured(
        blocks(12, 12), criterion=criterion, tie=["*.up"], start=4, rule=EAGER
    )
    sizes = {structure.widths["*.up"].size}

    def equal():
        assert model[0].up.out_features == model[1].up.out_features == structure.widths["*.up"].size
        sizes.add(structure.widths["*.up"].size)

    learn(model, optimizer, structure, 40, check=equal)
    assert len(sizes) > 1
    plain = structure.finish()
    assert plain[0].up.out_features == plain[1].up.out_features


def test_widths_that_share_dimensions_are_tied_each_with_their_own():
    model = libraries.llama()
    found = ds.find_widths(model, libraries.TOKENS(), tie=["*.groups", "*.group_size"])
    changes = [
        ds.Change(found.widths["*.groups"], (0, 2), 0),
        ds.Change(found.widths["*.group_size"], (0, 1), 1),
    ]
    operate(changes)
    for layer in model.model.layers:
        assert layer.self_attn.q_proj.out_features == 2 * 3 * 4
        assert layer.self_attn.k_proj.out_features == 2 * 4
        assert layer.self_attn.num_key_value_groups == 3
    model(*libraries.TOKENS())


def test_a_stream_that_is_normalised_keeps_its_gains():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 8), nn.Linear(5, 8)
            self.norm_a, self.norm_b = nn.LayerNorm(8), nn.LayerNorm(8)
            self.out_a, self.out_b = nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x):
            return self.out_a(self.norm_a(self.a(x))) + self.out_b(self.norm_b(self.b(x)))

    width = ds.find_widths(Two(), (X,), tie=["[ab]"]).widths["[ab]"]
    assert {(each.name, each.power) for each in width.rescaled} == {("weight", -0.5), ("eps", -1.0)}
    assert len(width.rescaled) == 4
    assert width.normalisation is not None
    operate([ds.Change(width, tuple(range(6)), 0)])


def test_layers_that_only_the_code_holds_equal_are_found_when_they_are_tied():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 5)
            self.c, self.d = nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.d(self.c(self.b(self.a(x))).view(-1, self.a.out_features))

    assert [*ds.find_widths(Reader(), (X,)).widths] == ["b"]
    assert [*ds.find_widths(Reader(), (X,), tie=["[ac]"]).widths] == ["[ac]", "b"]


@pytest.mark.parametrize(
    ("tie", "message"),
    [
        (["*.down"], r"tie has '\*\.down', but the widths are \['0\.up', '1\.up', '2\.up'\]"),
        (["0.*", "*.up"], r"'0\.\*' and '\*\.up', which both match the width '0\.up'"),
        (["*.up"], r"different sizes, \{'0\.up': 6, '1\.up': 6, '2\.up': 4\}"),
        ("*.up", r"tie must be a list of patterns"),
    ],
)
def test_what_cannot_be_tied_is_refused(tie, message):
    with pytest.raises(ds.ConfigurationError, match=message):
        ds.find_widths(blocks(6, 6, 4), (X,), tie=tie)


def test_heads_and_their_width_are_no_single_width():
    hf = libraries.library()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 10}
    model = hf.BertModel(hf.BertConfig(**sizes, **libraries.VOCABULARY))
    with pytest.raises(ds.ConfigurationError, match="cannot be one"):
        ds.find_widths(model, libraries.TOKENS(), tie=["*.head*"])


def test_tie_goes_where_the_widths_are_found():
    model = blocks(6, 6)
    found = ds.find_widths(model, (X,))
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(ds.ConfigurationError, match="tie to find_widths"):
        ds.Structure(model, optimizer, widths=found, total_steps=5, tie=["*.up"])


def test_declared_widths_are_not_tied():
    rnn, reader = ds.nn.RNN(5, 3), nn.Linear(3, 2)
    rnn.feeds(reader)
    with pytest.raises(ds.ConfigurationError, match="tie needs example_inputs"):
        ds.find_widths(nn.Sequential(rnn, reader), tie=["*"])
