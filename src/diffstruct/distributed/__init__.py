"""Several processes that train one model: one decision for all of them, and wrappers that follow surgery."""

from diffstruct.distributed.exchange import Rows, Seen
from diffstruct.distributed.processes import Processes
from diffstruct.distributed.sharded_blocks import (
    find_blocks_anew,
    reducing,
    settle,
    shard_like,
    unlike_a_block,
    whole_copy,
)
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
from diffstruct.distributed.wrappers import following, plain, unwrapped

__all__ = [
    "Processes",
    "Rows",
    "Seen",
    "find_blocks_anew",
    "following",
    "is_sharded",
    "local",
    "plain",
    "put_rows",
    "reducing",
    "sample",
    "sample_place",
    "scale_",
    "settle",
    "shard_like",
    "sums_along",
    "unlike_a_block",
    "unwrapped",
    "whole",
    "whole_copy",
]
