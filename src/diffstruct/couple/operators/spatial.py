"""Operators that pool, resample and pad images."""

from __future__ import annotations

from collections.abc import Sequence

from diffstruct.couple.call import Call, Dims, fresh, op_rule

_POOLS = {
    "max_pool1d": 1,
    "max_pool2d": 2,
    "max_pool3d": 3,
    "max_pool2d_with_indices": 2,
    "max_pool3d_with_indices": 3,
    "avg_pool1d": 1,
    "avg_pool2d": 2,
    "avg_pool3d": 3,
    "_adaptive_avg_pool2d": 2,
    "_adaptive_avg_pool3d": 3,
    "adaptive_avg_pool1d": 1,
    "adaptive_max_pool1d": 1,
    "adaptive_max_pool2d": 2,
    "adaptive_max_pool3d": 3,
    "fractional_max_pool2d": 2,
    "upsample_nearest1d": 1,
    "upsample_nearest2d": 2,
    "upsample_nearest3d": 3,
    "_upsample_nearest_exact1d": 1,
    "_upsample_nearest_exact2d": 2,
    "_upsample_nearest_exact3d": 3,
    "upsample_linear1d": 1,
    "upsample_bilinear2d": 2,
    "_upsample_bilinear2d_aa": 2,
    "upsample_bicubic2d": 2,
    "_upsample_bicubic2d_aa": 2,
    "upsample_trilinear3d": 3,
    "grid_sampler_2d": 2,
}


@op_rule(*_POOLS)
def _pool(call: Call) -> Sequence[Dims]:
    """The last dimensions are those of the image; the ones before stay."""
    dims, spatial = call.dims(call.args[0]), _POOLS[call.name]
    reason = f"is spatial in {call.state.where}"
    for dim in dims[-spatial:]:
        call.fix(dim, reason)
    for grid in call.tensors[1:]:
        for dim in call.dims(grid)[1:]:
            call.fix(dim, reason)
    return [
        (*dims[:-spatial], *(fresh(size, reason) for size in result.shape[-spatial:]))
        for result in call.results
    ]
