"""Tensors and arrays as entries of a safetensors file, which is written and read entry by entry.

Nothing of the file is ever held twice: a model on a GPU is copied one tensor at a time, and what is read goes
straight into the memory of the tensors that are returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffstruct.checkpoint.files import Damaged, read_into, to_json

_SAFETENSORS = {
    **{"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "complex64": "C64"},
    **{"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "bool": "BOOL"},
    **{"uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8"},
    **{"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"},
}
"""What safetensors calls the types that all its readers know; others are bytes to it."""

_OTHERS = ("complex128", "complex32", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")

TENSOR_TYPES = {name: getattr(torch, name) for name in (*_SAFETENSORS, *_OTHERS) if hasattr(torch, name)}
"""The types of tensors that can be saved, by the names of `torch`."""

_NUMBERS = [np.dtype(code) for code in "?bhiqBHIQefdFD"]
ARRAY_TYPES = {typed.str: typed for each in _NUMBERS for typed in (each, each.newbyteorder())}
"""The types of arrays that can be saved, by their `str`, such as '<f4'."""

Raw = NDArray[np.uint8]


@dataclass(frozen=True)
class Entry:
    """One tensor or array in the file.

    Args:
        name: its name there.
        type: its type in the words of safetensors.
        shape: its shape there; that of its bytes where safetensors has no word for the type.
        size: bytes.
        alignment: of which its place is a multiple.
        raw: gives its bytes, `[size]`.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    size: int
    alignment: int
    raw: Callable[[], Raw]


def tensor_entry(name: str, tensor: Tensor) -> Entry:
    """A tensor, on any device and with any strides, as an entry."""
    typed = str(tensor.dtype).removeprefix("torch.")
    return _entry(name, typed, tensor.shape, tensor.element_size(), lambda: raw_of_tensor(tensor))


def array_entry(name: str, array: NDArray[Any]) -> Entry:
    """An array with any strides as an entry."""
    typed = array.dtype.name if array.dtype.isnative else ""
    return _entry(name, typed, array.shape, array.dtype.itemsize, lambda: raw_of_array(array))


def _entry(name: str, typed: str, shape: Sequence[int], itemsize: int, raw: Callable[[], Raw]) -> Entry:
    size = prod(shape) * itemsize
    if typed in _SAFETENSORS:
        return Entry(name, _SAFETENSORS[typed], tuple(shape), size, itemsize, raw)
    return Entry(name, "U8", (size,), size, 1, raw)


def raw_of_tensor(tensor: Tensor) -> Raw:
    """The bytes of a tensor; its own memory where that is contiguous and on the CPU."""
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    flat = plain.as_strided((plain.numel(),), (1,))  # one number may be contiguous with any stride
    raw: Raw = flat.view(torch.uint8).numpy()
    return raw


def raw_of_array(array: NDArray[Any]) -> Raw:
    """The bytes of an array; its own memory where that is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """The order in the file: by alignment, so that each begins at a multiple of its own."""
    return sorted(entries, key=lambda entry: -entry.alignment)


def header(ordered: Iterable[Entry]) -> bytes:
    """The head of the safetensors file of these entries: there is one that is right, to the byte."""
    table, at = {}, 0
    for entry in ordered:
        places = [at, at := at + entry.size]
        table[entry.name] = {"dtype": entry.type, "shape": [*entry.shape], "data_offsets": places}
    text = to_json(table)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def chunks(entries: Iterable[Entry]) -> Iterator[bytes | Raw]:
    """The whole file, piece by piece."""
    ordered = in_order(entries)
    yield header(ordered)
    for entry in ordered:
        yield entry.raw()


def fill(entries: Iterable[Entry], file: BinaryIO, size: int, digest: Any) -> None:
    """Read a file of `size` bytes into the memory of these entries.

    Raises:
        Damaged: it is not the file of these entries.
    """
    ordered = in_order(entries)
    expected = header(ordered)
    if size != len(expected) + sum(entry.size for entry in ordered):
        raise Damaged("tensors.safetensors has another size than what it is to hold")
    found = np.empty(len(expected), np.uint8)
    read_into(file, found, digest)
    if found.tobytes() != expected:
        raise Damaged("the head of tensors.safetensors does not fit tree.json")
    for entry in ordered:
        raw = entry.raw()
        read_into(file, raw, digest)
        if entry.type == "BOOL" and raw.size and raw.max() > 1:
            raise Damaged(f"{entry.name!r} has truth values that are neither 0 nor 1")
