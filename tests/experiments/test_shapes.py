"""The shape of a transformer beside a grid, tried quickly, and its table."""

import sys

import pytest
import torch
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
    assert table.count("| two blocks | 0 | ") == table.count("| from one block | 0 | ") == 1
    assert table.count("stream 48 | 83,") == 2
    assert (tmp_path / "figure.png").stat().st_size > 1000
    capsys.readouterr()
    assert run.main(["small", "--quick", "--jobs", "1", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("0 runs to do, 4 found")


def test_uniform_shapes_fill_the_budget(run):
    shapes = sys.modules["shapes"]
    for budget in run.BUDGETS.values():
        grid = [*shapes.uniform_shapes(budget)]
        assert len(grid) >= 10
        assert all(0.97 * budget < shape.parameters <= budget for shape in grid)


def test_updates_for_a_graph_are_those_of_training(run):
    """Without the graph, for which there must be a GPU."""
    train, together = sys.modules["train"], sys.modules["together"]
    [*_, job] = run.jobs_of(run.BUDGETS["small"], 1, quick=True)
    task, model = job.task, job.build()
    drawn = [*task.batches(torch.Generator().manual_seed(1))]
    x, y = (torch.stack(each) for each in zip(*drawn, strict=True))
    updates = together.Updates(model, task, (x, y))
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(together.WARM):
        updates()
    updates.undo(weights)
    for _ in drawn:
        updates()
    assert train.measured(model, task, "cpu")["bits"] == train.train(job)["bits"]
