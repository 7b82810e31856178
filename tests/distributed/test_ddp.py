"""`DistributedDataParallel`: one structure on all ranks, that of one process with the whole batch."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.ranks import ROUNDING, assert_alike, assert_as_one, network, on_ranks, train
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

import diffstruct as ds

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::diffstruct.StructureWarning")]

DOUBLE = {"dtype": torch.float64}


def compare(size, *runs, tolerance=ROUNDING):
    for ranks, run in zip(on_ranks(size, *runs), runs, strict=True):
        assert_alike(ranks)
        assert_as_one(ranks[0], run(0, 1), tolerance)


@pytest.mark.parametrize("size", [2, 4])
def test_both_orders_of_wrapping_come_to_what_one_process_does(size):
    orders = ["structure first", "wrapper first", "inner after wrapper"]
    compare(size, *[partial(train, order=order, finish=True) for order in orders])


def test_growing_back_from_one_unit_though_ranks_began_with_other_weights():
    compare(2, partial(train, order="structure first", start=1))


def test_what_the_loss_is_and_how_the_batch_is_cut_make_no_difference():
    compare(
        2,
        partial(train, accumulate=3, **DOUBLE),
        partial(train, loss="squares", **DOUBLE),
        partial(train, loss="sigmoid", **DOUBLE),
        partial(train, order="wrapper first", kind="layernorm", sgd=True, **DOUBLE),
        tolerance=1e-9,
    )


def test_a_run_on_four_ranks_goes_on_on_two():
    runs = [partial(train, order=order, **DOUBLE) for order in ("structure first", "wrapper first")]
    states = [four[0]["state"] for four in on_ranks(4, *[partial(run, stop=20) for run in runs])]
    goes_on = [partial(run, begin=20, state=state) for run, state in zip(runs, states, strict=True)]
    for two in on_ranks(2, *goes_on):
        assert_alike(two)
        assert_as_one(two[0], runs[0](0, 1), tolerance=1e-9)


def test_settings_of_the_wrapper_go_on_to_hold():
    settings = [
        {"gradient_as_bucket_view": True},
        {"static_graph": True},
        {"find_unused_parameters": True},
        {"bucket_cap_mb": 1},
    ]
    runs = [partial(train, order="wrapper first", settings=each) for each in settings]
    compare(2, *runs, partial(train, order="wrapper first", hook=allreduce_hook))


def test_criteria_that_look_at_weights_alone_and_parametrize_them():
    priced = ds.OutgoingNorm(ds.L1Price(0.02))
    factors = ds.Multipliers(ds.L1Price(1e-3, how="gradient"))
    both = ("structure first", "wrapper first")
    compare(
        2,
        partial(train, order="wrapper first", criterion=priced),
        *[partial(train, order=order, criterion=factors, finish=True) for order in both],
    )


def test_statistics_of_a_batch_norm_differ_between_ranks_but_decisions_do_not():
    (ranks,) = on_ranks(2, partial(train, kind="batchnorm", finish=True))
    assert_alike(ranks)
    assert any(removed for _, _, removed, _, _ in ranks[0]["events"])


def test_blocks_come_and_go_on_all_ranks():
    options = {"kind": "blocks", "depth": ["1"], "start": {"1": 1}, "rule": {"1": ds.Rule(max_units=5)}}
    both = ("structure first", "wrapper first")
    for ranks in on_ranks(2, *[partial(train, order=order, **options) for order in both]):
        assert_alike(ranks)
        assert any(added for _, name, _, added, _ in ranks[0]["events"] if name == "1")


def test_a_budget_is_met_on_all_ranks():
    half = sum(p.numel() for p in network().parameters()) // 2
    options = {"budget": ds.Budget(parameters=half), "total_steps": 30}
    (ranks,) = on_ranks(2, partial(train, finish=True, **options))
    assert_alike(ranks)
    assert sum(each.numel() for each in ranks[0]["weights"].values()) <= half


def test_the_script_of_the_page_runs_as_it_stands(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "distributed.md"
    script, *_ = re.findall(r"^```py\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    path = tmp_path / "train.py"
    path.write_text(script.replace("STEPS = 300", "STEPS = 60"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(path)]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    assert "parameters are left" in done.stdout
