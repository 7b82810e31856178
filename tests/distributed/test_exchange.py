"""What processes have seen is put together as one process would have seen it, call by call."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffstruct.criteria.loss import recognise
from diffstruct.distributed import Rows, Seen
from diffstruct.distributed.exchange import together


def all_ranks(seen):
    """`together` on each of some ranks, whose arrays are summed and gathered in one process."""
    waiting = {"headers": [], "sums": []}

    def group(rank, table=None, total=None):
        def gather(header):
            waiting["headers"].append(header)
            return np.array(table) if table is not None else np.array([header] * len(seen))

        def add(values):
            waiting["sums"].append(values)
            return total if total is not None else values

        agree = lambda *_: None  # noqa: E731
        return SimpleNamespace(rank=rank, size=len(seen), agree=agree, gather=gather, sum=add)

    sizes = {"0": 3}
    for rank, each in enumerate(seen):
        together(group(rank), each, sizes, 1)
    table = [*waiting["headers"]]
    waiting["sums"].clear()
    for rank, each in enumerate(seen):
        with np.errstate(all="ignore"):
            together(group(rank, table), each, sizes, 1)
    total = np.sum(waiting["sums"], axis=0)
    return [together(group(rank, table, total), each, sizes, 1) for rank, each in enumerate(seen)]


@given(
    lengths=st.lists(st.lists(st.integers(2, 6), min_size=1, max_size=3), min_size=2, max_size=3),
    seed=st.integers(0, 99),
)
def test_calls_stay_apart_so_that_means_of_parts_of_any_size_are_told(lengths, seed):
    """A binary cross-entropy whose batches are of other sizes on each rank, and in each call."""
    chance = torch.Generator().manual_seed(seed)
    seen = []
    for parts in lengths:
        outputs = torch.randn(sum(parts), 2, generator=chance, dtype=torch.float64)
        labels = (torch.rand(outputs.shape, generator=chance) < 0.5).double()
        size = torch.tensor(parts).repeat_interleave(torch.tensor(parts))[:, None]
        gradient = (outputs.sigmoid() - labels) / (2 * size)
        rows = Rows(outputs, gradient, -1, float(len(outputs)), tuple(parts))
        seen.append(Seen(True, {"0": torch.randn(3, generator=chance).double().numpy()}, rows))
    for found in all_ranks(seen):
        assert found.rows.parts == tuple(each for parts in lengths for each in parts)
        assert torch.equal(found.rows.outputs, torch.cat([each.rows.outputs for each in seen]))
        np.testing.assert_allclose(found.slopes["0"], np.mean([each.slopes["0"] for each in seen], 0))
        loss = recognise(found.rows.outputs, found.rows.gradient, found.rows.parts)
        calls = sum(map(len, lengths))
        if 2 * sum(map(sum, lengths)) >= calls + 4:
            assert loss.kind == "sigmoid"
            assert loss.scale == pytest.approx(calls / 2 / len(lengths))
