"""Cells that nobody tuned on, tried quickly, and their tables; and many processes, briefly."""

import sys

import pytest
from helpers.experiments import experiment

pytestmark = pytest.mark.slow


def test_cells_are_run_in_all_ways_and_are_not_run_again(tmp_path, capsys, monkeypatch):
    with experiment("robust") as program:
        monkeypatch.setattr(program, "QUICK_CELLS", 2)
        arguments = ["drawn", "--quick", "--seeds", "1", "--jobs", "1", "--out", str(tmp_path)]
        assert program.main(arguments) == 0
        runs = program.runs_of((tmp_path / "summary.json").read_text())
        assert [[*each] for each in runs.values()] == 2 * [["fixed", *program.HOW]]
        for each in runs.values():
            ((fixed,), (own,)) = each["fixed"], each["own"]
            assert own["parameters"] <= own["whole"] == fixed["parameters"]
        assert (tmp_path / "RESULTS.md").read_text().startswith("#")
        assert (tmp_path / "figure.png").stat().st_size > 1000
        capsys.readouterr()
        assert program.main(arguments) == 0
        assert capsys.readouterr().out.startswith("0 runs to do")


def test_cells_are_the_same_each_time_and_of_all_kinds():
    with experiment("robust"):
        cells = sys.modules["cells"]
        every = [*cells.cells()]
        assert every == [*cells.cells()]
        assert len(every) >= 400
        for name in ("DATA", "KINDS", "ACTIVATIONS", "RATES"):
            field = {"RATES": "optimizer"}.get(name, name.lower().removesuffix("s"))
            assert {getattr(cell, field) for cell in every} == {*getattr(cells, name)}


def test_two_processes_come_to_one_structure(tmp_path):
    with experiment("distributed") as program:
        program.RUNS = {"blocks": [("shards", 2)]}
        assert program.main(["--steps", "20", "--out", str(tmp_path)]) == 0
    (row,) = (tmp_path / "RESULTS.md").read_text().splitlines()[-1:]
    _, name, ranks, events, *_, alike, as_one, _, _, _, _ = map(str.strip, row.split("|"))
    assert (name, ranks, alike) == ("blocks, fully_shard", "2", "yes")
    assert int(events) > 0
    assert float(as_one) < 1e-9
