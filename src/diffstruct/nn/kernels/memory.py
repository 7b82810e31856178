"""From tensors to the arrays of compiled code.

`tensor.detach().numpy()` takes a microsecond per tensor, and a call of a kernel takes a dozen; an address
takes a tenth of that. So a kernel gets addresses and sizes, and makes its arrays itself. The address of an
absent tensor is 0.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from diffstruct.nn.kernels.compile import compiled

LINE = 64  # bytes of a cache line


@intrinsic
def _pointer(typing_context: Any, address: Any, like: Any) -> Any:
    """The address as a pointer to numbers of the type of `like`."""
    pointer = types.CPointer(like)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(types.int64, like), generate


@compiled
def array(address: Any, shape: Any, like: Any) -> Any:
    """The array of `shape`, of numbers of the type of `like`, that begins at `address`, rows adjacent."""
    return numba.carray(_pointer(address, like), shape)


@compiled
def empty(shape: Any, like: Any) -> Any:
    """New memory for an array of the type of `like`, not yet written, that begins at a cache line.

    A vector that lies across two lines takes twice as long to read.
    """
    kind = array(0, (0,), like)
    count = 1
    for size in shape:
        count *= size
    raw = np.empty(count + LINE // kind.itemsize, kind.dtype)
    start = (-raw.ctypes.data) % LINE // kind.itemsize
    return raw[start : start + count].reshape(shape)


@intrinsic
def bare(typing_context: Any, held: Any) -> Any:
    """The same array without reference counting, valid for as long as the caller keeps `held`.

    Numba counts the references to memory that it has allocated at each view of it, which takes longer than a
    small layer takes for a vector.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        result = context.make_array(held)(context, builder, arguments[0])
        result.meminfo = result.parent = context.get_constant_null(types.MemInfoPointer(types.voidptr))
        return result._getvalue()

    return held(held), generate


@compiled
def zeros(shape: Any, like: Any) -> Any:
    """`empty`, filled with zeros."""
    result = empty(shape, like)
    result[:] = 0
    return result
