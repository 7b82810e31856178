"""`fully_shard`: the structure of one process with the whole batch, each having some rows of the weights."""

from functools import partial

import pytest
import torch
from helpers import rank_faults as faults
from helpers.ranks import EAGER, assert_alike, assert_as_one, network, on_ranks, train

import diffstruct as ds

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::diffstruct.StructureWarning")]

SHARDED = partial(train, order="sharded", dtype=torch.float64)


def compare(size, *runs):
    for ranks, run in zip(on_ranks(size, *runs), runs, strict=True):
        assert_alike(ranks)
        assert_as_one(ranks[0], run(0, 1), tolerance=1e-9)


def test_losses_accumulation_and_the_end_come_to_what_one_process_does():
    runs = [
        partial(SHARDED, finish=True),
        partial(SHARDED, accumulate=3),
        partial(SHARDED, loss="squares"),
        partial(SHARDED, settings={"reshard_after_forward": False}),
    ]
    compare(2, *runs)


def test_streams_are_silenced_whole():
    compare(2, partial(SHARDED, kind="layernorm", sgd=True))


def test_blocks_come_and_go_though_some_ranks_have_no_row_of_a_tensor():
    rule = {"*": EAGER, "1": ds.Rule(max_units=5)}
    options = {"kind": "blocks", "depth": ["1"], "start": {"1": 2}, "rule": rule, "finish": True}
    run = partial(SHARDED, **options, stop=17)
    compare(4, run)
    events = [(removed, added) for _, name, removed, added, _ in run(0, 1)["events"] if name == "1"]
    assert any(removed for removed, _ in events)
    assert any(added for _, added in events)


def test_a_budget_is_met_and_batch_norms_follow():
    half = sum(p.numel() for p in network().parameters()) // 2
    budget = {"budget": ds.Budget(parameters=half), "total_steps": 30}
    found = on_ranks(2, partial(SHARDED, finish=True, **budget), partial(SHARDED, kind="batchnorm"))
    for ranks in found:
        assert_alike(ranks)
        assert any(removed for _, _, removed, _, _ in ranks[0]["events"])
    assert sum(each.numel() for each in found[0][0]["weights"].values()) <= half


def test_a_decision_that_fails_is_undone_on_all_ranks():
    works = partial(faults.undone, order="sharded"), partial(faults.undone, order="wrapped")
    for ranks in on_ranks(2, *works):
        for found in ranks:
            assert found == [True] * len(found), found


def test_optimizer_and_parameters_stay_the_same_objects_and_what_cannot_be_is_refused():
    objects, refused = on_ranks(2, faults.sharded_objects, faults.sharded_refusals)
    for ranks in objects:
        assert ranks == [True] * len(ranks), ranks
    words = {
        "too late": "call fully_shard first",
        "criterion": "OutgoingNorm judges by whole weights",
        "depth": "call fully_shard with each block",
        "copy": "a copy cannot follow",
    }
    for ranks in refused:
        assert isinstance(ranks, dict), ranks
        for what, expected in words.items():
            assert expected in ranks[what]
