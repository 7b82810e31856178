"""Several processes that train one model: one decision for all of them, and wrappers that follow surgery."""

from diffstruct.distributed.exchange import Rows, Seen
from diffstruct.distributed.processes import Processes
from diffstruct.distributed.shards import (
    is_sharded,
    local,
    put_rows,
    sample,
    sample_place,
    scale_,
    sums_along,
    whole,
)
from diffstruct.distributed.wrappers import following, unwrapped

__all__ = [
    "Processes",
    "Rows",
    "Seen",
    "following",
    "is_sharded",
    "local",
    "put_rows",
    "sample",
    "sample_place",
    "scale_",
    "sums_along",
    "unwrapped",
    "whole",
]
