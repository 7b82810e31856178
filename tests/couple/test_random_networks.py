"""Random networks of all blocks together: no width that is found is ever wrong."""

import torch
from hypothesis import given, settings
from zoo.checks import (
    assert_finite,
    assert_sizes_hold,
    assert_unchanged,
    learn,
    outputs_of,
    silent_units_come_and_go,
    snapshot,
)
from zoo.random_networks import networks

import diffstruct as ds

EAGER = ds.Rule(threshold=0.3, p_add=0.7, p_delete=0.5, max_units=999, redraw_after=2)


@settings(max_examples=25)
@given(networks())
def test_widths_of_random_networks_hold(drawn):
    model, inputs = drawn
    before = snapshot(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    found = ds.find_widths(model, inputs)
    assert_unchanged(model, before)
    assert all(each.reason for each in found.refused)
    if not found.widths:
        return
    options = {
        "start": None,
        "rule": EAGER,
        "interval": 1,
        "total_steps": 100,
        "criterion": ds.OutgoingNorm(),
    }
    structure = ds.Structure(model, optimizer, widths=found, **options)
    silent_units_come_and_go(model, inputs, structure.widths.values())
    learn(model, inputs, optimizer, structure, steps=5)
    plain = structure.finish()
    assert_sizes_hold(plain)
    assert_finite(outputs_of(plain, inputs))
