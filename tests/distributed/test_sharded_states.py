"""A run of a model that is sharded goes on from what was saved, on any number of ranks."""

from functools import partial

import pytest
import torch
from helpers import rank_states as states
from helpers.exact import same
from helpers.ranks import assert_alike, on_ranks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::diffstruct.StructureWarning"),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled"),  # in a single process
]


def test_a_sharded_run_goes_on_from_its_states_on_four_ranks_on_two_and_unsharded(tmp_path):
    first, second, last = (str(tmp_path / name) for name in ("first", "second", "last"))
    (four,) = on_ranks(4, partial(states.interrupted, folder=first, last=last))
    ends = [found["end"] for found in four]
    assert_alike(ends)
    sizes = [{name: size for _, name, _, _, size in events} for events in _of_steps(ends[0]["events"])]
    assert sizes[0] != sizes[1]  # and so come back to others
    for found in four:
        ways = [found[way] for way in ("end", "from the start", "from disk", "from memory", "made anew")]
        assert_alike(ways)
        assert all(way["losses"] == pytest.approx(ends[0]["losses"]) for way in ways)
    two, refused, finished = on_ranks(
        2,
        partial(states.goes_on, folder=first, to=second),
        partial(states.refused, folder=last),
        partial(states.at_once, folder=last),
    )
    end = four[0]["finished"]
    assert end["gone"] > 0
    assert all(same(found["finished at once"], end) for found in four)
    for other in (*finished, states.at_once(0, 1, last)):
        assert other["gone"] == end["gone"]
        assert other["cost"] == pytest.approx(end["cost"], rel=1e-6)
        for name, weights in end["weights"].items():
            torch.testing.assert_close(other["weights"][name], weights, rtol=0, atol=1e-10)
    assert_alike(two)
    for other in (two[0], *states.of_one(second)):
        assert other["events"] == ends[0]["events"]
        assert other["draws"] == ends[0]["draws"]
        assert other["losses"] == pytest.approx(ends[0]["losses"])
        for name, weights in ends[0]["weights"].items():
            torch.testing.assert_close(other["weights"][name], weights, rtol=0, atol=1e-10)
    assert all(found["finished"] is True for found in refused)
    words = {
        "late, on one": ("has failed on another process", "no memory"),
        "surgery, on one": ("has failed on another process", "no memory"),
        "sharding, on one": ("has failed on another process", "no memory"),
        "missing on one": ("the processes differ in the state dicts that they load",) * 2,
        "late, on all": ("'criterion.pressure'", "'criterion.pressure'"),
        "early, on one": (
            "has failed on another process",
            "'widths' of the structure's state dict is missing",
        ),
        "others": ("the processes differ in the state dicts that they load",) * 2,
        "weights on one": ("has failed on another process", "at any sizes: 3.bias[0] would have"),
        "other weights": ("the processes differ in the sizes of the state dicts",) * 2,
        "other file": ("torch.distributed.checkpoint saves sharded ones",) * 2,
        "growing": ("'widening.sizes' of the structure's state dict is missing",) * 2,
    }
    for what, expected in words.items():
        for found, says in zip(refused, expected, strict=True):
            assert says in found[what], what


def _of_steps(events):
    return [event for event in events if event[0] <= states.SAVED], events
