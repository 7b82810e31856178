"""What is saved is what is loaded, bit for bit."""

from __future__ import annotations

import sys
import tempfile
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from helpers.exact import bits, same
from helpers.trees import NAMES, TREES
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import diffstruct as ds
from diffstruct.checkpoint import files
from diffstruct.checkpoint.tree import MAX_DEPTH

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


@pytest.mark.slow
@given(st.dictionaries(NAMES, TREES, max_size=3))
def test_any_tree_comes_back_bit_for_bit(values):
    with tempfile.TemporaryDirectory() as folder:
        ds.checkpoint.save(folder, **values)
        assert same(ds.checkpoint.load(folder), values)


def test_the_file_of_the_tensors_is_one_that_other_programs_read(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).to(torch.bfloat16)
    half = torch.ones(3, dtype=torch.complex64)
    path = ds.checkpoint.save(tmp_path, model=model, half=half, flags=np.array([True]), __metadata__=half)
    read = load_file(path / "tensors.safetensors")
    for name, tensor in model.state_dict().items():
        assert same(tensor, read[f"model.{name}"])
    assert same(half, read["half"])
    assert same(half, read["__metadata__#2"])
    assert same(torch.tensor([True]), read["flags"])


def test_keys_that_look_alike_are_told_apart(tmp_path):
    tree = {1: torch.zeros(1), "1": torch.ones(1), "a": {"b": torch.ones(2)}, "a.b": torch.zeros(2)}
    ds.checkpoint.save(tmp_path, tree=tree)
    assert same(ds.checkpoint.load(tmp_path)["tree"], tree)


def test_tensors_that_share_memory_come_back_as_tensors_of_their_own(tmp_path):
    tensor = torch.arange(4.0)
    ds.checkpoint.save(tmp_path, one=tensor, other=tensor[1:])
    loaded = ds.checkpoint.load(tmp_path)
    loaded["one"].zero_()
    assert bits(loaded["other"]) == bits(tensor[1:])


def test_conjugates_and_negatives_are_saved_as_what_they_are(tmp_path):
    tensor = torch.tensor([1 + 2j])
    ds.checkpoint.save(tmp_path, one=tensor.conj(), other=tensor.conj().imag)
    loaded = ds.checkpoint.load(tmp_path)
    assert loaded["one"].item() == 1 - 2j
    assert loaded["other"].item() == -2


def test_integers_of_any_length_need_no_other_limit_of_python(tmp_path):
    number = 7**100_000
    assert number > 10 ** sys.get_int_max_str_digits()
    ds.checkpoint.save(tmp_path, number=number)
    assert ds.checkpoint.load(tmp_path) == {"number": number}


def test_a_module_gets_the_versions_back_that_it_wrote_into_its_state(tmp_path):
    class Versioned(torch.nn.Module):
        _version = 7

        def _load_from_state_dict(self, state, prefix, metadata, *rest):
            self.loaded = metadata["version"]
            super()._load_from_state_dict(state, prefix, metadata, *rest)

    ds.checkpoint.save(tmp_path, model=Versioned())
    model = Versioned()
    ds.checkpoint.load(tmp_path, model=model)
    assert model.loaded == 7


HELD = []
HELD.append(HELD)
Pair = namedtuple("Pair", "a b")


class Special(torch.Tensor):
    """A tensor that means more than its numbers."""


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), r"tree\['a'\]\[1\] is a builtins.object"),
        (Pair(1, 2), "Pair, which a checkpoint cannot hold"),
        (1j, "builtins.complex"),
        ({1, 2}, "builtins.set"),
        (HELD, "does it hold itself"),
        ({(1, 2): 3}, "has a key of type tuple"),
        ({True: 3}, "has a key of type bool"),
        ({2**64: 3}, "integers of 64 bits"),
        ("\ud800", "not Unicode"),
        ({"\ud800": 1}, "not Unicode"),
        (np.array(["a"]), "of the type numpy"),
        (np.longdouble(1), "of the type numpy"),
        (np.array([None]), "of the type numpy.object"),
        (np.ma.masked_array([1]), r"save numpy\.asarray of it"),
        (torch.ones(2).to_sparse(), "sparse"),
        (torch.ones(2, device="meta"), "on meta"),
        (torch.ones(2).as_subclass(Special), "is a Special"),
    ],
)
def test_what_cannot_be_saved_is_named_before_anything_is_written(value, reason, tmp_path):
    with pytest.raises(ds.CheckpointError, match=reason):
        ds.checkpoint.save(tmp_path / "new", tree={"a": [1, value]})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "wrap",
    [lambda x: [x], lambda x: (x,), lambda x: {1: x}, lambda x: OrderedDict(a=x)],
    ids=["list", "tuple", "dict", "OrderedDict"],
)
def test_a_tree_may_be_as_deep_as_it_can_be_loaded(wrap, tmp_path):
    tree = torch.ones(1)
    for _ in range(MAX_DEPTH - 1):
        tree = wrap(tree)
    ds.checkpoint.save(tmp_path, tree=tree)
    assert same(ds.checkpoint.load(tmp_path)["tree"], tree)
    with pytest.raises(ds.CheckpointError, match=f"has more than {MAX_DEPTH} levels"):
        ds.checkpoint.save(tmp_path, tree=wrap(tree))


def test_tensors_and_arrays_may_have_as_many_dimensions_as_there_can_be(tmp_path):
    values = {"tensor": torch.ones([1] * 64), "array": np.ones([1] * 32)}
    ds.checkpoint.save(tmp_path, **values)
    assert same(ds.checkpoint.load(tmp_path), values)


def test_a_tree_that_could_not_be_loaded_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr("diffstruct.checkpoint.content.MAX_JSON", 1000)
    assert files.MAX_JSON > 1000
    with pytest.raises(ds.CheckpointError, match="make arrays of long lists of numbers"):
        ds.checkpoint.save(tmp_path, losses=[1.5] * 1000)
    ds.checkpoint.save(tmp_path, losses=np.array([1.5] * 1000))


def test_ordered_dicts_stay_ordered_dicts(tmp_path):
    ds.checkpoint.save(tmp_path, tree=OrderedDict(b=1, a=OrderedDict()))
    loaded = ds.checkpoint.load(tmp_path)["tree"]
    assert same(loaded, OrderedDict(b=1, a=OrderedDict()))
