"""Whether two values are the same, bit for bit."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def bits(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor, whatever its type."""
    flat = tensor.detach().resolve_conj().resolve_neg().reshape(-1)
    fresh = torch.empty(flat.shape, dtype=flat.dtype)  # a single entry keeps its strides even in a clone
    return fresh.copy_(flat).view(torch.uint8).numpy().tobytes()


def same(one: Any, other: Any) -> bool:
    """Types, shapes, order of keys and all bits."""
    one, other = (each.data if type(each) is torch.nn.Parameter else each for each in (one, other))
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return (one.dtype, one.shape) == (other.dtype, other.shape) and bits(one) == bits(other)
    if isinstance(one, np.ndarray | np.generic):
        return (one.dtype.str, one.shape) == (
            other.dtype.str,
            other.shape,
        ) and one.tobytes() == other.tobytes()
    if isinstance(one, float):
        return struct.pack("<d", one) == struct.pack("<d", other)
    if isinstance(one, Mapping):
        metadata = [getattr(each, "_metadata", None) for each in (one, other)]
        keys = [[(type(key), key) for key in each] for each in (one, other)]
        return same(*metadata) and keys[0] == keys[1] and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and type(one) is not torch.Size:
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
