"""Parts of a batch in parallel: the kernels release Python's lock, so plain threads suffice."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import torch

ENOUGH = 2_000_000  # multiplications per thread for which starting it (about 20 us) takes little of its time


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="diffstruct")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads


def parts(batch: int, work: int) -> list[tuple[int, int]]:
    """Where to cut a batch, as (begin, end), for as many threads as torch may use and as have enough to do.

    Args:
        batch: Sequences.
        work: Multiplications in all.
    """
    if work < 2 * ENOUGH or batch < 2:
        return [(0, batch)]
    count = max(1, min(work // ENOUGH, batch, torch.get_num_threads()))
    return [(batch * part // count, batch * (part + 1) // count) for part in range(count)]


def run(function: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> None:
    """Make all the calls in parallel, the first in this thread; return when all are done."""
    others = [_pool().submit(function, *arguments) for arguments in calls[1:]]
    try:
        function(*calls[0])
    finally:
        if others:
            wait(others)  # they write into memory that the caller may free
    for other in others:
        other.result()
