"""The study of depth, tried quickly, and its table."""

from __future__ import annotations

import json

import pytest
from helpers.experiments import experiment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def program():
    with experiment("depth") as found:
        yield found


def test_runs_are_made_once_and_end_in_a_table(program, tmp_path, capsys):
    arguments = ["--quick", "--jobs", "1", "--out", str(tmp_path)]
    assert program.main(arguments) == 0
    assert capsys.readouterr().out.startswith("12 runs to do, 0 found")
    record = json.loads((tmp_path / "runs" / "2--learned--0.json").read_bytes())
    assert 1 <= record["blocks"] == len(record["hidden"]) <= 8
    assert json.loads((tmp_path / "runs" / "2--fixed--0.json").read_bytes())["blocks"] == 8
    for maps in range(1, 7):  # what is written of depths that follow exactly
        record["blocks"] = maps
        (tmp_path / "runs" / f"{maps}--learned--0.json").write_text(json.dumps(record))
    assert program.main(arguments) == 0
    assert capsys.readouterr().out.startswith("0 runs to do, 12 found")
    written = (tmp_path / "RESULTS.md").read_text()
    assert "1.00 of the medians, 1.00 of all runs" in written
    assert "| 4 | 4 | 4 |" in written
