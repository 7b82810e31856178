"""What an event costs where a model is sharded: the arithmetic, and events of two processes."""

from __future__ import annotations

import re

import pytest
from helpers.experiments import experiment
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="module", autouse=True)
def program():
    """The command, in this process."""
    with experiment("scale") as found:
        yield found


def pair(model, rows, columns, state=(4, 4)):
    """Two layers with a width between them."""
    parameters = {
        "up": model.Sharded((rows, columns), 4, 4, state),
        "down": model.Sharded((columns, rows), 4, 4, state),
    }
    return model.Model(parameters, {"hidden": [model.Place("up", 0), model.Place("down", 1)]})


def test_bytes_of_one_layer_by_hand():
    import model

    found = model.of_event(pair(model, 10, 6), {"hidden": -4}, ranks=4)
    assert found[:3] == [model.Collective("sum", 32), *2 * [model.Collective("sum", 8)]]
    # 10 rows on 4 ranks are padded to 12, and 6 rows to 8; values, gradients and two moments, 4 bytes each.
    assert [each.whole for each in found[3:]] == 4 * [12 * 6 * 4] + 4 * [8 * 10 * 4]
    assert found[3].received(4) == 3 / 4 * 12 * 6 * 4


@given(
    rows=st.integers(2, 40), columns=st.integers(1, 20), units=st.integers(-39, 20), ranks=st.integers(1, 9)
)
def test_what_must_hold_of_any_event(rows, columns, units, ranks):
    import model

    units = max(units, 1 - rows)
    whole = pair(model, rows, columns)
    after, memory = whole.after({"hidden": units}), model.memory_of(whole, {"hidden": units}, ranks)
    assert after.parameters["up"].shape == (rows + units, columns)
    assert after.parameters["down"].shape == (columns, rows + units)
    one_tensor = 4 * columns * (rows + rows + units)  # before and after, whole
    assert one_tensor < memory.peak
    # Two parameters, two gradients and four moments, gathered and cut; one of each pair along its columns.
    kept = columns * min(rows, rows + units)
    assert memory.written >= 8 * 4 * columns * rows + 4 * 4 * kept
    assert memory.picked == 4 * kept * (2 if units > 0 else 1)
    twice = model.Model(
        {f"{name}{i}": each for name, each in whole.parameters.items() for i in range(2)},
        {
            f"hidden{i}": [
                model.Place(f"{place.parameter}{i}", place.dim) for place in whole.widths["hidden"]
            ]
            for i in range(2)
        },
    )
    both = model.memory_of(twice, {"hidden0": units, "hidden1": units}, ranks)
    shards = sum(
        each.rows(ranks) * sum(each.kinds())
        for each in (*whole.parameters.values(), *after.parameters.values())
    )
    assert both.peak <= memory.peak + shards  # what is whole is so one after the other


def test_more_ranks_receive_more_and_seconds_grow_with_latency():
    import model

    whole, event = pair(model, 64, 64), {"hidden": -8}
    machine, memory = model.Machine(1e-3, 1e9, 1e9, 1e9), model.memory_of(whole, event, 4)
    four, eight = (model.of_event(whole, event, ranks) for ranks in (4, 8))
    assert sum(each.received(8) for each in eight) > sum(each.received(4) for each in four)
    slower = model.Machine(2e-3, 1e9, 1e9, 1e9)
    more = model.seconds_of(four, memory, 4, slower) - model.seconds_of(four, memory, 4, machine)
    assert more == pytest.approx(len(four) * 1e-3)


def test_the_large_model_is_the_one_that_is_named():
    from llama import events, llama

    model = llama()
    assert sum(each.entries for each in model.parameters.values()) == 6_738_415_616
    assert {*model.touched(["stream"])} == {*model.parameters}
    assert all({*event} <= {*model.widths} for event in events().values())


@pytest.mark.slow
def test_collectives_and_memory_of_two_processes_are_those_predicted(program, tmp_path, capsys):
    arguments = ["--ranks", "2", "--sizes", "small", "--repeats", "2", "--out", str(tmp_path)]
    assert program.main(arguments) == 0
    ratios = [re.findall(r"\((\d+\.\d+)\)", row) for row in capsys.readouterr().out.splitlines()]
    assert [len(row) for row in ratios] == [4, 4, 4, 2]
    assert all(row[:2] == ["1.00", "1.00"] for row in ratios)
    assert all(0.95 < float(row[2]) < 1.05 for row in ratios[:3])
    assert "64 ranks" in (tmp_path / "RESULTS.md").read_text()
