"""Residual networks beside their grids, tried quickly, and the tables."""

import sys

import pytest
from helpers.experiments import experiment

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
