"""Random networks of all blocks together: no width that is found is ever wrong."""

import torch
from hypothesis import HealthCheck, given, settings
from test_zoo import assert_is, assert_tells_the_truth, say, silent_units_come_and_go, snapshot
from zoo.random_networks import networks

import diffstruct as ds
from diffstruct.couple import traced_widths
from diffstruct.couple.outputs import tensors_in

EAGER = ds.Rule(threshold=0.3, p_add=0.7, p_delete=0.5, max_units=999, redraw_after=2)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_widths_of_random_networks_hold(drawn):
    model, inputs = drawn
    before = snapshot(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    widths, refused, _ = traced_widths(model, inputs)
    assert_is(model, before)
    assert all(each.reason for each in refused)
    if not widths:
        return
    structure = ds.Structure(
        model, optimizer, salience="outgoing", example_inputs=inputs, start=None, rule=EAGER, every=1
    )
    silent_units_come_and_go(model, inputs, structure.widths.values())
    for _ in range(5):
        loss = sum((each**2).mean() for each in tensors_in(model(*inputs)) if each.is_floating_point())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        structure.step()
    plain = structure.finish()
    assert_tells_the_truth(plain)
    assert all(each.isfinite().all() for each in say(plain, inputs) if each.is_floating_point())
