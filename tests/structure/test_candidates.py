"""Which widths are learned: those whose new units could be judged and trained. The others say why not."""

import pytest
import torch
from torch import nn

import diffstruct as ds

X = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def structured(model, optimizer=None, **options):
    optimizer = optimizer or torch.optim.Adam(model.parameters())
    return ds.Structure(model, optimizer, example_inputs=(X,), total_steps=100, **options)


class LowRank(nn.Module):
    """A frozen layer with a trained correction of low rank, as in LoRA (Hu et al. 2021)."""

    def __init__(self, inputs, outputs, rank=4):
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.down, self.up = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def test_frozen_readers_refuse_their_width_and_no_other():
    torch.manual_seed(0)
    model = nn.Sequential(LowRank(5, 8), nn.ReLU(), LowRank(8, 3))
    structure = structured(model)
    assert [*structure.widths] == ["0.down", "2.down"]  # the ranks
    assert "which is frozen" in structure.explain()
    assert model[0].base.out_features == 8


@pytest.mark.parametrize("criterion", [ds.TaylorImportance(), ds.OutgoingNorm(), ds.Multipliers()])
def test_a_layer_with_frozen_inputs_would_grow_random_units_and_is_refused(criterion):
    model = mlp()
    model[0].requires_grad_(False)
    structure = structured(model, criterion=criterion)
    assert [*structure.widths] == ["2"]
    assert "no weight that feeds it is trained" in structure.explain()
    assert model[0].out_features == 8


def test_an_optimizer_of_another_model_is_refused():
    model = mlp()
    with pytest.raises(ds.StructureError, match="no optimizer holds any parameter of this Sequential"):
        structured(model, torch.optim.Adam(mlp().parameters()))
    assert model[0].out_features == 8


def test_a_width_that_the_optimizers_hold_in_part_is_refused():
    model = mlp()
    structure = structured(model, torch.optim.Adam([*model[2].parameters(), *model[4].parameters()]))
    assert [*structure.widths] == ["2"]
    assert "none of the optimizers holds" in structure.explain()
    both = [torch.optim.Adam(model[index].parameters()) for index in (0, 2, 4)]
    model = mlp()
    both = [torch.optim.Adam(model[index].parameters()) for index in (0, 2, 4)]
    assert [*structured(model, both).widths] == ["0", "2"]


def test_without_any_width_left_the_reasons_are_in_the_error():
    model = mlp()
    model[0].requires_grad_(False)
    model[4].requires_grad_(False)
    with pytest.raises(ds.StructureError, match=r"(?s)no width that could be learned:.*feeds it.*reads it"):
        structured(model)


def test_widths_that_were_found_before_are_taken():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    found = ds.find_widths(model, (X,), exclude=["2"])
    structure = ds.Structure(model, optimizer, widths=found, total_steps=100)
    assert [*structure.widths] == [*found.widths] == ["0"]
    assert structure.widths["0"].size == 8
    assert structure.training.traced


def test_what_was_found_is_not_changed_by_the_structures_made_of_it():
    model = mlp()
    model[4].requires_grad_(False)
    found = ds.find_widths(model, (X,))
    refused = len(found.refused)
    optimizer = torch.optim.Adam(model[:4].parameters())
    structure = ds.Structure(model, optimizer, widths=found, total_steps=100, start=1)
    assert [*structure.widths] == ["0"]
    assert [*found.widths] == ["0", "2"]
    assert len(found.refused) == refused


def test_widths_of_another_model_are_refused():
    model, other = mlp(), mlp()
    found = ds.find_widths(other, (X,))
    with pytest.raises(ds.StructureError, match="of another Sequential"):
        ds.Structure(model, torch.optim.Adam(model.parameters()), widths=found, total_steps=100)


def test_found_widths_and_example_inputs_together_are_refused():
    model = mlp()
    found = ds.find_widths(model, (X,))
    for options in ({"example_inputs": (X,)}, {"include": ["0"]}, {"exclude": ["0"]}):
        with pytest.raises(ds.ConfigurationError, match="find_widths"):
            ds.Structure(model, torch.optim.Adam(model.parameters()), widths=found, total_steps=9, **options)


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_pattern_that_matches_no_width_is_refused_with_the_names(option):
    with pytest.raises(ds.ConfigurationError, match=r"encoder\.\*.*'0'.*'2'"):
        structured(mlp(), **{option: ["encoder.*"]})


def test_growth_goes_on_after_finish_with_the_widths_found_before():
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    found = ds.find_widths(model, (X,))
    first = ds.Structure(model, optimizer, widths=found, total_steps=100, start=1)
    assert first.finish()[0].out_features == 1
    options = {"criterion": ds.OutgoingNorm(), "rule": ds.Rule(p_add=1.0, reserve=2), "interval": 1}
    again = ds.Structure(model, optimizer, widths=found, total_steps=100, **options)
    assert {name: width.size for name, width in again.widths.items()} == {"0": 1, "2": 1}
    again.step()
    assert model[0].out_features == again.widths["0"].size > 1
    assert model[2].out_features == again.widths["2"].size > 1
    assert model(X).shape == (8, 3)


def test_widths_of_layers_that_were_replaced_are_refused():
    model = mlp()
    found = ds.find_widths(model, (X,))
    model[0] = nn.Linear(5, 8)
    with pytest.raises(ds.StructureError, match="lies in a Linear that the model has no more"):
        ds.Structure(model, torch.optim.Adam(model.parameters()), widths=found, total_steps=10)


def test_sparse_gradients_refuse_their_width():
    model = nn.Sequential(nn.Embedding(10, 6, sparse=True), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    tokens = torch.arange(8)
    structure = ds.Structure(
        model, torch.optim.SGD(model.parameters()), example_inputs=(tokens,), total_steps=10
    )
    assert [*structure.widths] == ["1"]
    assert "whose gradients are sparse" in structure.explain()


def test_a_string_is_no_list_of_patterns():
    with pytest.raises(ds.ConfigurationError, match="include must be a list of patterns"):
        structured(mlp(), include="0")
