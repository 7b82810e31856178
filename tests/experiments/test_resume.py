"""The experiment that kills runs, tried quickly, and its table."""

from __future__ import annotations

import pytest
from helpers.experiments import experiment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def program():
    with experiment("resume") as found:
        yield found


def test_killed_runs_and_loops_come_out_the_same(program, tmp_path, capsys):
    cases = ["grow, revision 3, ordinary loop", "MLP from one unit", "blocks"]
    assert program.main([*cases, "--trials", "3", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count(", the same\n") == 3
    written = (tmp_path / "RESULTS.md").read_text()
    assert "3 of 3 interrupted runs came out the same, bit for bit" in written
    for case in cases:
        (row,) = (line.split(" | ") for line in written.splitlines() if line.startswith(f"| {case}"))
        assert int(row[2]) + int(row[3]) >= 1  # interruptions
        assert int(row[5]) >= 2  # changes of sizes


def test_what_differs_is_told(program, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(program.loops, "differences", lambda one, other: ["weights"])
    assert program.main(["MLP with a budget", "--trials", "1", "--out", str(tmp_path)]) == 1
    assert "weights differ" in capsys.readouterr().out
    assert "0 of 1" in (tmp_path / "RESULTS.md").read_text()


def test_records_that_are_not_equal_differ(program, tmp_path):
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        assert program.loops.begin(tmp_path / name, "MLP", seed) == 0
    assert program.loops.differences(tmp_path / "one", tmp_path / "same") == []
    assert "weights" in program.loops.differences(tmp_path / "one", tmp_path / "other")


def test_an_unknown_case_is_named(program, capsys):
    with pytest.raises(SystemExit):
        program.main(["no such case"])
    assert "MLP" in capsys.readouterr().err
