"""All architectures of the zoo, and random networks, take the sizes of a state dict, or say why not."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import CASES
from zoo.checks import assert_unchanged, outputs_of, snapshot
from zoo.random_networks import networks

import diffstruct as ds
from diffstruct.structure.finish import write_eps
from diffstruct.surgery import operate

pytestmark = pytest.mark.slow


def resized(found, sizes):
    """Give widths other sizes, with entries of their own."""
    changes = []
    for name, width in found.widths.items():
        keep = range(min(width.size, sizes[name]))
        changes.append(ds.Change(width, tuple(keep), sizes[name] - len(keep)))
    operate(
        changes,
        (),
        lambda _, values: [v.uniform_(0.1, 0.5) for v in values.values() if v.is_floating_point()],
    )
    write_eps(found.widths.values())  # as `finish` does


def assert_becomes(fresh, learned, inputs, sizes, shows=True):
    """It does with example inputs; without them as well, or it is refused and has not changed.

    Unless no shape shows that a size has changed: 2 heads of 3 features are as wide as 3 of 2.
    """
    expected, state, twin = outputs_of(learned, inputs), learned.state_dict(), copy.deepcopy(fresh)
    ds.resize_to(fresh, state, inputs, sizes=sizes)
    for mine, right in zip(outputs_of(fresh, inputs), expected, strict=True):
        torch.testing.assert_close(mine, right, rtol=0, atol=1e-6)
    if not shows:
        return
    before = snapshot(twin)
    try:
        ds.resize_to(twin, state)
    except ds.StructureError as error:
        assert "give example_inputs" in str(error)  # noqa: PT017
        assert_unchanged(twin, before)
    else:
        for mine, right in zip(outputs_of(twin, inputs), expected, strict=True):
            torch.testing.assert_close(mine, right, rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_architecture_takes_the_sizes_of_a_state_dict(case):
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(case.build())
    learned, fresh = models
    found = ds.find_widths(learned, case.inputs())
    sizes = {}
    for index, (name, width) in enumerate(found.widths.items()):
        sizes[name] = width.size + 1 if index % 2 else max(width.size - 1, 1)
    resized(found, sizes)
    assert_becomes(fresh, learned, case.inputs(), sizes or None)


@settings(max_examples=25)
@given(networks(), st.data())
def test_random_networks_take_the_sizes_of_a_state_dict(drawn, data):
    fresh, inputs = drawn
    learned = copy.deepcopy(fresh)
    found = ds.find_widths(learned, inputs)
    sizes = {name: data.draw(st.integers(1, width.size + 2)) for name, width in found.widths.items()}
    before = {name: (width.size, lengths(width)) for name, width in found.widths.items()}
    resized(found, sizes)
    after = {name: (width.size, lengths(width)) for name, width in found.widths.items()}
    shows = all(after[name][0] == size or after[name][1] != each for name, (size, each) in before.items())
    assert_becomes(fresh, learned, inputs, sizes or None, shows)


def lengths(width):
    return [slot.tensor.shape[slot.dim] for slot in width.slots]
