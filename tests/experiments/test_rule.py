"""The rule's evidence, tried quickly, and what its tables say."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the digits are scikit-learn's: install the extra 'experiments'")

FOLDER = Path(__file__).parents[2] / "experiments" / "rule"


@pytest.fixture(autouse=True)
def program():
    """Its modules are found as they are when the folder is run; afterwards they are gone again."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    found = spec_from_file_location("rule_main", FOLDER / "__main__.py")
    program = module_from_spec(found)
    found.loader.exec_module(program)
    yield program
    sys.path.remove(str(FOLDER))
    for name in {*sys.modules} - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def test_runs_are_made_once_and_end_in_tables_and_figures(program, tmp_path, capsys):
    arguments = ["paper", "turns", "--quick", "--jobs", "1", "--out", str(tmp_path)]
    assert program.main(arguments) == 0
    assert capsys.readouterr().out.startswith("7 runs, 7 of them still to be made")
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    assert summary["paper: hard"]["loss"][0] < 40
    assert summary["turns: spirals of 0.5 turns"]["accuracy"][0] > 50
    written = (tmp_path / "RESULTS.md").read_text()
    assert "easy-hard-easy" in written
    assert "Spearman" in written
    assert (tmp_path / "paper.png").stat().st_size > 1000
    text, points = (
        tmp_path / "runs" / f"{name}--0.json" for name in ("paper--hard", "turns--spirals_of_1_turns")
    )
    for setting in program.settings():  # what else there is to report, from the same runs
        if setting.study == "revisions" or setting.study.startswith("ablation"):
            result = (points if setting.study.endswith(("digits", "spirals")) else text).read_text()
            program._file(tmp_path, setting, 0).write_text(result)
    assert program.main(arguments) == 0
    assert capsys.readouterr().out.startswith("7 runs, 0 of them still to be made")
    hard = summary["paper: hard"]
    written = (tmp_path / "RESULTS.md").read_text()
    assert f"| no trial | 1 | {hard['loss'][0]:.2f} / {hard['units'][0]:g} / " in written
    assert "| updates | 10,000 | 10,000 | 10,000 |" in written


def test_a_run_that_fails_is_reported_and_stops_no_other(program, tmp_path, capsys):
    def fail(seed: int, shorter: int) -> dict[str, float]:
        raise RuntimeError("no such luck")

    setting = program.Setting("paper", "hard", 1, fail)
    name, error = program._run(tmp_path, setting, 0, 1)
    assert (name, "no such luck" in error) == ("paper, hard, seed 0", True)
    assert not (tmp_path / "runs").exists()


def test_every_ingredient_that_is_taken_out_makes_a_difference(program):
    from grid import ABLATIONS, QUICK, _points

    results = {}
    for name, change in ABLATIONS.items():
        result = _points("spirals", 0, QUICK, **dict(change))
        results[name] = result["loss"], result["units"]
    assert len(set(results.values())) > len(ABLATIONS) // 2  # in so short a run not every one can


def test_unknown_studies_are_refused(program, capsys):
    with pytest.raises(SystemExit):
        program.main(["no-such-study"])
    assert "the studies are paper, revisions, sizes" in capsys.readouterr().err
