"""What goes wrong with several processes is said, in bounded time, and on all of them."""

import pytest
from helpers import rank_faults as faults
from helpers.ranks import on_ranks

pytestmark = pytest.mark.slow


def test_what_cannot_work_is_refused_on_all_ranks_in_words():
    works = faults.unwrapped, faults.other_seeds, faults.other_decisions, faults.refusals
    found = on_ranks(2, *works, faults.independent, faults.of_one)
    for ranks in found[:3]:
        assert ranks[0] == ranks[1]
    assert "no DistributedDataParallel around this Sequential is known" in found[0][0]
    assert "independent=True" in found[0][0]
    assert "the processes differ in widths, rules or seed" in found[1][0]
    assert "the processes differ in their decisions: those of rank 1" in found[2][0]
    words = {
        "DataParallel": "it copies the model to each device",
        "a part": "wrap the whole model in one",
        "not all": "does not reduce the gradients of 4.weight,",
        "PowerSGD": "keeps a PowerSGDState",
        "join": "give all processes as many batches",
        "tensor parallel": "its parameter 'weight' is a DTensor",
    }
    for ranks in found[3]:
        assert isinstance(ranks, dict), ranks
        for what, expected in words.items():
            assert expected in ranks[what]
    assert found[4][0]
    assert found[4][1]
    assert found[4][0] != found[4][1]
    assert min(found[5]) > 0


def test_a_rank_that_dies_ends_the_others_with_a_reason():
    (ranks,) = on_ranks(3, faults.killed)  # which ends those that go on waiting
    assert ranks[2] is None
    for found in ranks[:2]:
        assert "Error after" in found
    (ranks,) = on_ranks(2, faults.ended)
    assert "could not reach the 1 others" in ranks[0]
