"""Structure on models that know nothing of it: what users can ask for, and what is refused."""

import pytest
import torch
from helpers.any_module import EAGER, STILL, X, Y, learn, mlp, sizes, structured
from torch import nn

import diffstruct as ds


def test_starts_from_one_unit_and_learns():
    model, optimizer, structure = structured()
    assert sizes(structure) == {"0": 1, "2": 1}
    before = nn.functional.cross_entropy(model(X), Y).item()
    assert learn(model, optimizer, structure, 120) < before
    assert min(sizes(structure).values()) > 1
    assert model[0].out_features == model[2].in_features == structure.widths["0"].size


@pytest.mark.parametrize(
    ("start", "expected"),
    [(None, (16, 12)), (3, (3, 3)), ({"0": 5}, (5, 12)), ({"0": None, "*": 2}, (16, 2))],
)
def test_start(start, expected):
    _, _, structure = structured(start=start)
    assert tuple(sizes(structure).values()) == expected


def test_widths_start_at_the_sizes_that_the_model_came_with_unless_told_otherwise():
    model = mlp()
    structure = ds.Structure(model, torch.optim.Adam(model.parameters()), example_inputs=(X,), total_steps=10)
    assert sizes(structure) == {"0": 16, "2": 12}


def test_names_choose_widths():
    assert sizes(structured(include=["0"])[2]) == {"0": 1}
    model, _, structure = structured(exclude=["0"])
    assert sizes(structure) == {"2": 1}
    assert model[0].out_features == 16
    assert "0.weight[0], 0.bias[0], 2.weight[1] (16): is excluded by name" in structure.explain()
    with pytest.raises(ds.StructureError, match="is excluded by name"):
        structured(exclude=["*"])
    with pytest.raises(ds.ConfigurationError, match=r"rule has a value for 'none'.*\['0', '2'\]"):
        structured(rule={"none": EAGER})


def test_rules_differ_by_name():
    model, optimizer, structure = structured(rule={"0": STILL, "*": EAGER})
    learn(model, optimizer, structure)
    assert sizes(structure)["0"] == 1 < sizes(structure)["2"]


def test_explains_what_is_not_learned():
    _, _, structure = structured()
    assert structure.explain().splitlines() == [
        "0.weight[1] (5): is a dimension of the input",
        "4.weight[0], 4.bias[0] (3): is a dimension of the output",
    ]


class Literal(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)).view(-1, 6))))


class Squeezed(Literal):
    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)).squeeze())))


def test_a_size_in_the_code_is_refused_with_its_reason():
    _, _, structure = structured(Literal())
    assert sizes(structure) == {"b": 1}
    assert "a.weight[0], a.bias[0], b.weight[1] (6): with a unit more or less" in structure.explain()


def test_a_width_that_cannot_start_so_small_is_refused():
    _, _, structure = structured(Squeezed())
    assert sizes(structure) == {"b": 1}
    assert "starting from 1 units" in structure.explain()
    assert sizes(structured(Squeezed(), start=2)[2]) == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (X, r"write example_inputs=\(x,\)"),
        ((X[:, :2],), "does not run in evaluation mode"),
        ((), "does not run"),
    ],
)
def test_bad_example_inputs(inputs, message):
    model = mlp()
    with pytest.raises(ds.StructureError, match=message):
        structured(model, example_inputs=inputs)


def test_keyword_inputs():
    assert sizes(structured(example_inputs={"input": X})[2]) == {"0": 1, "2": 1}


def test_sizes_are_multiples():
    model, optimizer, structure = structured(mlp((32, 16)), multiple_of={"0": 8, "2": 4})
    seen = []

    def check():
        seen.append(tuple(sizes(structure).values()))
        assert seen[-1][0] % 8 == seen[-1][1] % 4 == 0

    learn(model, optimizer, structure, 150, check=check)
    assert len(set(seen)) > 2
    structure.finish()
    check()
    with pytest.raises(ds.ConfigurationError, match="multiples of multiple_of, 5"):
        structured(multiple_of=5)


def test_the_error_of_a_model_that_fails_is_in_the_message():
    with pytest.raises(ds.StructureError, match="mat1 and mat2 shapes cannot be multiplied"):
        structured(example_inputs=(X[:, :2],))
