"""Residual networks beside their grids, tried quickly, and the tables."""

import json
import sys

import pytest
from helpers.experiments import EXPERIMENTS, experiment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def run():
    with experiment("residual") as program:
        yield program


def test_the_table_has_learned_networks_and_the_grid(run, tmp_path, capsys):
    studies = ["digits-mlp", "ames-mlp"]
    assert run.main([*studies, "--quick", "--jobs", "1", "--out", str(tmp_path)]) == 0
    table = (tmp_path / "RESULTS.md").read_text()
    assert "### At most 1,201 parameters" in table
    assert "### At most 7,008 parameters" in table
    assert table.count(", room for 3 | ") == 2
    assert table.count("stream 6 | 1,1") == 2
    capsys.readouterr()
    assert run.main([*studies, "--quick", "--jobs", "1", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("0 runs to do, 3 found") == 2


def test_convolutions_are_learned_whole(run):
    """The stream, inner widths and blocks, within the budget."""
    result = sys.modules["train"].train(sys.modules["train"].Job("digits-cnn", 2680, None, 0, quick=True))
    blocks = result["sizes"]["blocks"]
    assert {f"blocks.{block}.up" for block in range(blocks)} < {*result["sizes"]}
    assert {"stem.1", "blocks"} < {*result["sizes"]}
    assert result["parameters"] <= 2680


@pytest.mark.parametrize("name", ["digits-cnn", "ames-mlp", "digits-mlp"])
def test_uniform_shapes_fill_the_budget(run, name):
    studies = sys.modules["studies"]
    study = studies.STUDIES[name]
    task = study.task(1, True)
    for budget in study.streams:
        grid = [studies.fill(task, budget, *each) for each in study.grid(budget)]
        assert len({*grid}) == 12
        for shape in grid:
            wider = shape._replace(inner=shape.inner + 1)
            assert studies.parameters(task, shape) <= budget < studies.parameters(task, wider)
        own = studies.widest(study, task, budget)
        assert all(mine >= theirs for shape in grid for mine, theirs in zip(own, shape, strict=True))


def test_the_pages_say_what_their_data_say(run):
    folder = EXPERIMENTS / "residual"
    summary, errors = (json.loads((folder / f"{name}.json").read_text()) for name in ("summary", "afresh"))
    assert (folder / "RESULTS.md").read_text() == run.report(summary)
    with experiment("residual", "afresh") as program:
        assert (folder / "AFRESH.md").read_text() == "\n".join(program.table(errors)) + "\n"
        for name, study in program.STUDIES.items():
            assert study.others[0] == study.seeds  # no shape was chosen by them
            for budget in study.streams:
                cell = errors[f"{name} {budget}"]
                assert len(cell["learned"]) == len(cell["uniform"]) == len(study.others)
