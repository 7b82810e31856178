"""Every architecture of the zoo: its widths are found, proved, learned, and a plain model is left."""

import copy
from collections import Counter
from functools import cache

import pytest
import torch
from zoo import CASES, library_cases
from zoo.checks import (
    READERS,
    assert_finite,
    assert_same,
    assert_sizes_hold,
    assert_unchanged,
    exported,
    learn,
    outputs_of,
    silent_units_come_and_go,
    snapshot,
)

import diffstruct as ds
from diffstruct.criteria import removal

pytestmark = [
    pytest.mark.slow,
    # Each layer is learned for itself here; tests/structure/test_configuration.py is about what then is said.
    pytest.mark.filterwarnings(r"ignore:\w+ cannot say these sizes:diffstruct.StructureWarning"),
]

CASES = [*CASES, *library_cases()]
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
EAGER = ds.Rule(threshold=0.3, reserve=1, p_add=0.7, p_delete=0.5, max_units=999, redraw_after=2)


@cache
def original(name):
    """Model, inputs and what was found in the model, made once for all tests."""
    case = next(case for case in CASES if case.name == name)
    torch.manual_seed(0)
    model, inputs = case.build(), case.inputs()
    before, chance = snapshot(model), torch.get_rng_state()
    found = ds.find_widths(model, inputs)
    assert torch.equal(torch.get_rng_state(), chance)
    assert_unchanged(model, before)
    return model, inputs, found


def made(case):
    """A copy of the case's model, its inputs and the copy's widths."""
    model, inputs, found = original(case.name)
    model, found = copy.deepcopy((model, found))
    return model, inputs, found


def places(model, width):
    """The places of a width, each tensor by the first of its names."""
    names: dict[int, str] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        names.setdefault(id(tensor), name)
    return frozenset(f"{names[id(slot.tensor)]}[{slot.dim}]" for slot in width.slots)


@EVERY_CASE
def test_widths_are_found_and_the_others_have_a_reason(case):
    model, inputs, found = original(case.name)
    widths = Counter(places(model, width) for width in found.widths.values())
    wanted = Counter(case.learned)
    assert wanted <= widths, sorted(map(sorted, wanted - widths))
    if case.complete:
        assert widths <= wanted + Counter(case.allowed), sorted(map(sorted, widths - wanted))
    for place, word in case.fixed.items():
        assert not any(place in each for each in widths)
        reasons = [each.reason for each in found.refused if place in each.places]
        assert reasons
        assert any(word in reason.lower() or "looked up" in reason for reason in reasons), reasons
    silent_units_come_and_go(model, inputs, found.widths.values())


@EVERY_CASE
def test_widths_are_learned_and_a_plain_model_is_left(case):
    model, inputs, found = made(case)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    options = {
        "start": None,
        "rule": EAGER,
        "interval": 1,
        "total_steps": 100,
        "criterion": ds.OutgoingNorm(),
    }
    if not (case.learned or case.allowed):
        before = snapshot(model)
        with pytest.raises(ds.StructureError, match="has no width that could be learned"):
            ds.Structure(model, optimizer, widths=found, **options)
        assert_unchanged(model, before)
        return
    structure = ds.Structure(model, optimizer, widths=found, **options)
    learn(model, inputs, optimizer, structure)
    assert structure.history.events
    plain = structure.finish()
    assert plain is model
    assert not any(type(module).__module__.startswith("diffstruct") for module in plain.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in plain.modules())
    assert_sizes_hold(plain)
    outputs = outputs_of(plain, inputs)
    assert_finite(outputs)
    assert_loads_into_the_users_class(case, plain, structure, inputs, outputs)
    if case.exports:
        assert_same(outputs_of(exported(plain, inputs), inputs), outputs)


SOME = {
    *("deep_mlp", "batchnorm_mlp", "swiglu", "resnet_basic", "depthwise_separable", "densenet_block"),
    *("shufflenet_unit", "gru", "lstm_two_layers", "handwritten_lstm", "tied_autoencoder", "gpt_tied"),
    *("grouped_query_attention", "squeeze_and_excitation"),
}


@pytest.mark.parametrize("case", [case for case in CASES if case.name in SOME], ids=lambda case: case.name)
def test_units_are_judged_by_the_default_criterion(case, monkeypatch):
    """Grace periods are so short, and so much may be measured, that units are removed as well as added."""
    monkeypatch.setattr(removal, "FORWARDS_A_STEP", 2)
    model, inputs, found = made(case)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    criterion = ds.TaylorImportance(price=50, annealing=1e-3, settling=1e9)  # units come and go to the end
    rule = ds.Rule(reserve=3, p_add=1, max_units=999, grace_period=2)
    structure = ds.Structure(
        model, optimizer, widths=found, total_steps=10, interval=1, criterion=criterion, rule=rule
    )
    readers = {id(slot.tensor) for width in structure.widths.values() for slot in width.having(*READERS)}
    important = set()

    def look():
        for name, width in structure.widths.items():
            importance = structure.criterion.importance(width)
            assert importance.shape == (width.size,)
            assert importance.isfinite().all()
            if structure.criterion.tracker.importance[name][structure.states[name].ages > 0].any():
                important.add(name)

    learn(model, inputs, optimizer, structure, check=look)
    assert important == {*structure.widths}  # at some time: a unit that is left at the end can be a dead ReLU
    assert structure.history.added() >= 3
    assert structure.history.removed()
    plain = structure.finish()
    assert not any(p._post_accumulate_grad_hooks for p in plain.parameters() if id(p) in readers)
    assert_sizes_hold(plain)
    outputs = outputs_of(plain, inputs)
    assert_finite(outputs)
    assert_loads_into_the_users_class(case, plain, structure, inputs, outputs)


def test_all_cases_that_the_default_criterion_is_tested_on_are_there():
    assert {case.name for case in CASES} >= SOME


def assert_loads_into_the_users_class(case, plain, structure, inputs, outputs):
    """The user's class, built at the final sizes, takes the state and has the same outputs."""
    known = (*case.learned, *case.allowed)
    if case.rebuild is None or not case.complete:
        return
    sizes: dict[frozenset[str], list[int]] = {}
    for width in structure.widths.values():  # heads before their width, where both have the same places
        sizes.setdefault(places(plain, width), []).append(width.size)
    again = case.rebuild({index: sizes[each].pop(0) for index, each in enumerate(known) if sizes.get(each)})
    again.load_state_dict(plain.state_dict())
    assert_same(outputs_of(again, inputs), outputs, rtol=1e-6)
