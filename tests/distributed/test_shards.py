"""What is done with tensors of which each process has some rows, beside the same with the whole tensor."""

from unittest.mock import patch

import torch
from hypothesis import given
from hypothesis import strategies as st

from diffstruct.distributed import shards


@given(st.integers(1, 9), st.integers(1, 7), st.integers(1, 20), st.integers(1, 5))
def test_samples_of_all_processes_together_are_that_of_the_whole_tensor(rows, columns, step, processes):
    whole = torch.arange(rows * columns).reshape(rows, columns)
    expected = shards.sample(whole, step)
    assert expected.tolist() == whole.flatten()[::step].tolist()
    assert shards.sample_place(whole, step) == (0, len(expected))
    each, found = -(-rows // processes), torch.full_like(expected, -1)
    for rank in range(processes):
        begin = min(rank * each, rows)
        with (
            patch.object(shards, "is_sharded", return_value=True),
            patch.object(shards, "first_row", return_value=begin),
            patch.object(shards, "local", return_value=whole[begin : begin + each]),
        ):
            own = shards.sample(whole, step)
            place, length = shards.sample_place(whole, step)
        assert length == len(expected)
        found[place : place + len(own)] = own
    assert torch.equal(found, expected)
