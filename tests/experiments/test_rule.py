"""The rule's evidence, tried quickly, and its tables."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from helpers.experiments import experiment

pytestmark = pytest.mark.slow

pytest.importorskip("sklearn", reason="the digits are scikit-learn's: install the extra 'experiments'")


@pytest.fixture(scope="module", autouse=True)
def program():
    with experiment("rule") as found:
        yield found


def test_runs_are_made_once_and_end_in_tables_and_figures(program, tmp_path, capsys):
    arguments = ["paper", "turns", "--quick", "--jobs", "1", "--out", str(tmp_path)]
    assert program.main(arguments) == 0
    assert capsys.readouterr().out.startswith("7 runs to do, 0 found")
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
        if setting.study == "revisions" or setting.study.startswith(("ablation", "knobs")):
            result = (points if setting.study.endswith(("digits", "spirals")) else text).read_text()
            (tmp_path / program.file_of((setting, 0))).write_text(result)
    assert program.main(arguments) == 0
    assert capsys.readouterr().out.startswith("0 runs to do, 7 found")
    hard = summary["paper: hard"]
    written = (tmp_path / "RESULTS.md").read_text()
    assert f"| no grace period | 1 | {hard['loss'][0]:.2f} / {hard['units'][0]:g} / " in written
    assert "| updates | 10,000 | 10,000 | 10,000 |" in written
    data = json.loads((tmp_path / "figures.json").read_bytes())
    assert data["over time"]["hard"]["loss"][1][-1] == pytest.approx(hard["loss"][0], abs=1e-4)
    assert [*data["knobs"]["hard"]["price"]] == ["0.1", "0.3", "1", "3", "10"]
    assert (tmp_path / "knobs.png").stat().st_size > 1000


def test_a_run_that_fails_is_reported_and_stops_no_other(program, tmp_path, monkeypatch, capsys):
    def fail(seed: int, shorter: int) -> dict[str, float]:
        raise RuntimeError("no such luck")

    settings = [*program.settings()]
    index = next(i for i, setting in enumerate(settings) if setting.name == "spirals of 1 turns")
    settings[index] = replace(settings[index], run=fail)
    monkeypatch.setattr(program, "settings", lambda: settings)
    assert program.main(["turns", "--quick", "--jobs", "1", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "failed: runs/turns--spirals_of_1_turns--0: RuntimeError: no such luck\n"
    )
    assert len([*tmp_path.glob("runs/*.json")]) == 3


def test_every_ingredient_that_is_taken_out_makes_a_difference(program):
    from grid import ABLATIONS, _points

    results = {}
    for name, change in ABLATIONS.items():
        result = _points("spirals", 0, 3, **dict(change))  # a third as long as usual
        results[name] = result["loss"], result["units"]
    assert len(set(results.values())) > len(ABLATIONS) // 2  # in so short a run not every one can


def test_unknown_studies_are_refused(program, capsys):
    with pytest.raises(SystemExit):
        program.main(["no-such-study"])
    assert "the studies are paper, revisions, sizes" in capsys.readouterr().err
