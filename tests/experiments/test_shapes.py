"""The shape of a transformer beside a grid, tried quickly, and its table."""

import sys

import pytest
from helpers.experiments import experiment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def run():
    with experiment("shapes") as program:
        yield program


def test_the_table_has_the_learned_shape_and_the_grid(run, tmp_path, capsys):
    assert run.main(["small", "--quick", "--jobs", "1", "--out", str(tmp_path)]) == 0
    table = (tmp_path / "RESULTS.md").read_text()
    assert "## At most 83,616 parameters" in table
    assert "| learned: `token` " in table
    assert table.count("stream 48 | 83,") == 2
    capsys.readouterr()
    assert run.main(["small", "--quick", "--jobs", "1", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("0 runs to do, 3 found")


def test_uniform_shapes_fill_the_budget(run):
    shapes = sys.modules["shapes"]
    for budget in run.BUDGETS.values():
        grid = [*shapes.uniform_shapes(budget)]
        assert len(grid) >= 10
        assert all(0.97 * budget < shape.parameters <= budget for shape in grid)
