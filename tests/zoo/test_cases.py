"""The cases are right about their models, as far as that can be checked without finding widths."""

import re
from math import gcd

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.utils._pytree import tree_flatten

from zoo import CASES, library_cases
from zoo.random_networks import networks

ALL = (*CASES, *library_cases())
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")  # of torch, about its speed


def each_of(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


each_case = each_of(ALL)
each_rebuilt = each_of([case for case in ALL if case.rebuild is not None])
each_other = each_of([case for case in ALL if case.rebuild is None])


def model_of(case):
    torch.manual_seed(0)
    return case.build().eval()


def outputs(model, inputs):
    with torch.no_grad():
        return [leaf for leaf in tree_flatten(model(*inputs))[0] if isinstance(leaf, torch.Tensor)]


def tensors(model):
    return dict(model.named_parameters()) | dict(model.named_buffers())


def size_of(place, named):
    name, dim = re.fullmatch(r"(.+)\[(\d)\]", place).groups()
    return named[name].shape[int(dim)]


def changed(before: nn.Module, after: nn.Module) -> dict[str, int]:
    """By how much each place differs between two models of the same class."""
    old, new = tensors(before), tensors(after)
    assert old.keys() == new.keys()
    return {
        f"{name}[{dim}]": new[name].shape[dim] - old[name].shape[dim]
        for name in old
        for dim in range(old[name].dim())
        if new[name].shape[dim] != old[name].shape[dim]
    }


def test_there_are_many_cases_with_names_of_their_own():
    assert len({case.name for case in ALL}) == len(ALL)
    assert len(CASES) >= 60
    assert sum(bool(case.learned) for case in CASES) >= 50
    assert sum(case.rebuild is not None for case in CASES) >= 15


@each_case
def test_builds_small_and_repeatably_and_runs(case):
    model = model_of(case)
    assert sum(parameter.numel() for parameter in model.parameters()) < 50_000
    first = outputs(model, case.inputs())
    assert first
    assert all(output.isfinite().all() for output in first)
    # A signal that has died on its way would hide every mistake.
    assert all(output.std() > 1e-3 for output in first if output.numel() > 1)
    again = outputs(model_of(case), case.inputs())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    model.train()
    assert outputs(model, case.inputs())


@each_case
def test_places_exist(case):
    named = tensors(model_of(case))
    widths = (*case.learned, *case.allowed)
    assert all(widths)
    for place in {place for width in widths for place in width} | set(case.fixed):
        assert size_of(place, named) >= 1, place
    assert not set(case.fixed) & {place for width in widths for place in width}
    assert all(word == word.lower() for word in case.fixed.values())


@each_other
def test_one_unit_count_fits_all_places_of_a_width(case):
    named = tensors(model_of(case))
    widths = (*case.learned, *case.allowed)
    for width in widths:
        # A place that several widths share can be a concatenation of them.
        alone = [size_of(place, named) for place in width if sum(place in each for each in widths) == 1]
        assert not alone or gcd(*alone) > 1


@each_rebuilt
def test_rebuilt_at_another_size_exactly_the_places_of_that_width_differ(case):
    model = model_of(case)
    before = outputs(model, case.inputs())
    for index, width in enumerate((*case.learned, *case.allowed)):
        for more in (1, 3):
            torch.manual_seed(0)
            other = case.rebuild({index: case.units[index] + more}).eval()
            differences = changed(model, other)
            assert differences.keys() == width
            assert all(by % more == 0 and by > 0 for by in differences.values())
            after = outputs(other, case.inputs())
            assert [a.shape for a in after] == [b.shape for b in before]
    everything = {index: units + 2 + index for index, units in enumerate(case.units)}
    assert outputs(case.rebuild(everything).eval(), case.inputs())


@settings(max_examples=60)
@given(networks())
def test_random_networks_run_and_repeat(drawn):
    model, inputs = drawn
    assert not model.training
    first, again = outputs(model, inputs), outputs(model, inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape[-1] == 3
    assert first[0].isfinite().all()
    assert sum(parameter.numel() for parameter in model.parameters()) < 50_000
