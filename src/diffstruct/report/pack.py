"""Numbers as the page carries them: arrays of few bytes each, in base 64, within JSON."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray


class Packed(TypedDict):
    """An array: the name of its type, little-endian, and its bytes."""

    type: str
    bytes: str


def pack_counts(values: Sequence[int] | NDArray[np.int64]) -> Packed:
    """Integers from 0 to 4,294,967,295, in the narrowest type that holds them all."""
    array = np.asarray(values, np.int64)
    largest = int(array.max(initial=0))
    name = "u1" if largest < 2**8 else "u2" if largest < 2**16 else "u4"
    return _packed(array.astype(f"<{name}"), name)


def pack_numbers(values: Sequence[float | None] | NDArray[np.float64]) -> Packed:
    """Numbers to seven digits; None is not a number."""
    array = np.asarray(values, np.float64)  # which turns None into nan
    with np.errstate(over="ignore"):
        return _packed(array.astype("<f4"), "f4")


def _packed(array: NDArray[np.generic], name: str) -> Packed:
    return {"type": name, "bytes": b64encode(array.tobytes()).decode("ascii")}
