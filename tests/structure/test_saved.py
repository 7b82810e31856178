"""Records of structures of which there is only the state dict; and the page that a structure writes."""

import re
from dataclasses import replace

import pytest
import torch
from helpers.exact import same

import diffstruct as ds
from diffstruct.errors import StructureError
from diffstruct.structure.saved import found_in, record_of_saved


@pytest.fixture(scope="module")
def structure():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    x = torch.randn(64, 3)
    made = ds.Structure(model, optimizer, example_inputs=(x,), total_steps=400, interval=4)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        made.step(loss)
    assert made.history.events
    return made


def test_a_saved_structure_has_the_record_that_it_had_itself(structure):
    saved = record_of_saved(structure.state_dict(), "run.pt")
    own = structure.record()
    assert saved.title == "run.pt"
    same = "step", "total_steps", "loss", "events", "unit_of_importance", "unit_of_loss", "status"
    assert [getattr(saved, name) for name in same] == [getattr(own, name) for name in same]
    (width,), (known,) = saved.widths, own.widths
    # The structure itself is asked for one sample more, of this moment, on which the state dict is silent.
    samples = [
        each for each in known.samples if each.step < own.step or len(known.samples) == len(width.samples)
    ]
    assert [(each.step, [*each.importances]) for each in width.samples] == [
        (each.step, [*each.importances]) for each in samples
    ]
    assert replace(width, samples=(), places="") == replace(known, samples=(), places="")
    assert "0.weight[dim 0]" in width.places


def test_a_state_dict_is_found_within_those_of_trainers(structure):
    state = structure.state_dict()
    assert found_in(state) is state
    assert found_in({"model": {"weight": 1}, "callbacks": {"a": {}, "b": {"structure": state}}}) is state
    for tree in (None, [state], {"model": {}}, {"history": {}, "widths": {}}):
        assert found_in(tree) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 1}, "format"),
        ({"history": {}}, "history"),
        ({"steps": "many"}, "steps"),
        ({"widths": [1]}, "widths"),
    ],
)
def test_a_damaged_state_dict_is_refused(structure, change, says):
    with pytest.raises(StructureError, match=says):
        record_of_saved({**structure.state_dict(), **change}, "run.pt")


@pytest.mark.parametrize("column", ["size", "removed"])
def test_a_history_that_cannot_have_happened_is_refused(structure, column):
    state = structure.state_dict()
    state["history"]["events"][column][-1] += 1_000
    with pytest.raises(StructureError, match=r"history.*impossible"):
        record_of_saved(state, "run.pt")


def test_a_sample_of_other_units_is_refused(structure):
    state = structure.state_dict()
    (width,) = state["history"]["samples"]["widths"]
    width["units"][0], width["units"][-1] = width["units"][-1].item(), width["units"][0].item()
    assert width["units"][0] != width["units"][-1]
    with pytest.raises(StructureError, match=r"history.*other units"):
        record_of_saved(state, "run.pt")


def test_a_structure_writes_its_page_and_stays_as_it_was(structure, tmp_path):
    before = structure.state_dict()
    structure.report(tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert re.search("<title>Sequential after 300 of 400 steps</title>", html)
    assert same(structure.state_dict(), before)
