"""Values as JSON, exactly; tensors and arrays are entries of a file beside it.

Strings, booleans, None, finite floats, integers of 64 bits and lists are themselves. Anything else is an
object with one key, which says what it is: `{"tuple": [1, 2]}`, `{"dict": [[key, value], ...]}`,
`{"tensor": [name, "float32", [3, 4]]}`. Reading makes nothing but the types listed here, and calls nothing
that a file could choose.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from math import isfinite, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffstruct.checkpoint.arrays import (
    ARRAY_TYPES,
    TENSOR_TYPES,
    Entry,
    array_entry,
    tensor_entry,
)
from diffstruct.checkpoint.files import Damaged
from diffstruct.errors import CheckpointError

MAX_DEPTH = 32
"""Levels of a tree. Where there are more, it most often holds itself."""

_MAX_DIMS = 64  # as torch and NumPy have it

DTYPES = {str(each): each for each in vars(torch).values() if isinstance(each, torch.dtype)}
_MAPPINGS: dict[str, Callable[[Any], Any]] = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}
_PLAIN_TENSORS = (Tensor, nn.Parameter, nn.Buffer)

Path = tuple[str | int, ...]


def text_of(path: Path) -> str:
    """A path as one would write it in Python, such as `optimizer['state'][0]`."""
    return f"{path[0]}" + "".join(f"[{key!r}]" for key in path[1:])


class Writer:
    """Turns values into JSON, and collects the entries of their tensors."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def node(self, value: Any, path: Path) -> Any:
        """A value as JSON; `path` is where it lies.

        Raises:
            CheckpointError: it, or something in it, cannot be saved.
        """
        if len(path) > MAX_DEPTH:
            raise CheckpointError(
                f"{text_of(path[:4])} has more than {MAX_DEPTH} levels: does it hold itself?"
            )
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return self._string(value, path)
        if kind is int:
            return value if -(2**63) <= value < 2**63 else {"int": hex(value)}
        if kind is float:
            return value if isfinite(value) else {"float": struct.pack("<d", value).hex()}
        if kind is bytes:
            return {"bytes": value.hex()}
        if kind is list:
            return self._items(value, path)
        if kind is tuple:
            return {"tuple": self._items(value, path)}
        if kind is torch.Size:
            return {"torch.Size": [*value]}
        if kind is torch.dtype or kind is torch.device:
            return {f"torch.{kind.__name__}": str(value)}
        if kind in (dict, OrderedDict, Counter):
            return self._mapping(value, path)
        if isinstance(value, np.ndarray | np.generic):
            return self._array(value, path)
        if isinstance(value, Tensor):
            return self._tensor(value, path)
        raise CheckpointError(
            f"{text_of(path)} is a {kind.__module__}.{kind.__qualname__}, which a checkpoint cannot hold: it "
            "holds tensors, arrays, numbers, strings, bytes, None, and dicts, lists and tuples of these"
        )

    def _items(self, values: list[Any] | tuple[Any, ...], path: Path) -> list[Any]:
        return [self.node(each, (*path, i)) for i, each in enumerate(values)]

    def _string(self, value: str, path: Path) -> str:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise CheckpointError(f"{text_of(path)} is not Unicode ({error}); save it as bytes") from error
        return value

    def _mapping(self, value: Mapping[Any, Any], path: Path) -> dict[str, Any]:
        pairs = [[self._key(key, path), self.node(each, (*path, key))] for key, each in value.items()]
        name = type(value).__name__
        metadata = getattr(
            value, "_metadata", None
        )  # what modules write into their state dicts, for versions
        if metadata is None:
            return {name: pairs}
        return {"state_dict": [pairs, self.node(metadata, (*path, "_metadata"))]}

    def _key(self, key: Any, path: Path) -> str | int:
        if type(key) is str:
            return self._string(key, path)
        if type(key) is int and -(2**63) <= key < 2**63:
            return key
        raise CheckpointError(
            f"{text_of(path)} has a key of type {type(key).__name__}: keys are strings or integers of 64 bits"
        )

    def _array(self, value: Any, path: Path) -> dict[str, Any]:
        if type(value) is not np.ndarray and not isinstance(value, np.generic):
            raise CheckpointError(f"{text_of(path)} is a {type(value).__name__}: save numpy.asarray of it")
        if value.dtype.str not in ARRAY_TYPES:
            raise CheckpointError(
                f"{text_of(path)} is of the type numpy.{value.dtype}: a checkpoint holds arrays of booleans, "
                "integers, floats of up to 64 bits, and complex numbers of these"
            )
        if isinstance(value, np.generic):
            return {"scalar": [value.dtype.str, value.tobytes().hex()]}
        entry = array_entry(self._name(path), value)
        self.entries[entry.name] = entry
        return {"array": [entry.name, value.dtype.str, [*value.shape]]}

    def _tensor(self, value: Tensor, path: Path) -> dict[str, Any]:
        typed = str(value.dtype).removeprefix("torch.")
        dense = value.layout is torch.strided and not value.is_nested and value.device.type != "meta"
        if type(value) not in _PLAIN_TENSORS or not dense or typed not in TENSOR_TYPES:
            sharded = type(value).__name__ == "DTensor"
            hint = "; torch.distributed.checkpoint saves sharded ones" if sharded else ""
            raise CheckpointError(
                f"{text_of(path)} is a {type(value).__name__} ({value.dtype}, {value.layout}, on "
                f"{value.device.type}): a checkpoint holds plain dense tensors{hint}"
            )
        entry = tensor_entry(self._name(path), value)
        self.entries[entry.name] = entry
        return {"tensor": [entry.name, typed, [*value.shape]]}

    def _name(self, path: Path) -> str:
        """A name for an entry: its path, with a number where the keys 1 and "1" would give the same."""
        name = plain = ".".join(str(key) for key in path)
        count = 1
        while name in self.entries or name == "__metadata__":  # the latter has a meaning in safetensors
            count += 1
            name = f"{plain}#{count}"
        return name


class Reader:
    """Turns JSON into values, with tensors whose entries are still to be filled.

    Args:
        budget: bytes that all tensors may take together, so that no more memory is taken than there is data.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self.entries: dict[str, Entry] = {}

    def value(self, node: Any, depth: int = 1) -> Any:
        """What `Writer.node` made the JSON from.

        Raises:
            Damaged: the JSON says something else.
        """
        if depth > MAX_DEPTH:
            raise Damaged("tree.json is nested too deeply")
        if node is None or isinstance(node, bool | int | float | str):
            return node
        if isinstance(node, list):
            return [self.value(each, depth + 1) for each in node]
        try:
            ((kind, body),) = node.items()
            return self._object(kind, body, depth)
        # The shapes and texts of a damaged file fail in as many ways as there are constructors.
        except (TypeError, ValueError, KeyError, RuntimeError, OverflowError, struct.error) as error:
            raise Damaged(f"tree.json has a value that makes no sense ({error!s:.200})") from error

    def _object(self, kind: str, body: Any, depth: int) -> Any:
        match kind:
            case "tensor" | "array":
                return self._entry(kind, *body)
            case "dict" | "OrderedDict" | "Counter":
                return _MAPPINGS[kind](self._pairs(body, depth))
            case "state_dict":
                pairs, metadata = body
                state = OrderedDict(self._pairs(pairs, depth))
                state._metadata = self.value(metadata, depth + 1)  # type: ignore[attr-defined]
                return state
            case "tuple":
                return tuple(self.value(_a(list, body), depth))
            case "int":
                return int(_a(str, body), 16)
            case "float":
                return struct.unpack("<d", bytes.fromhex(body))[0]
            case "bytes":
                return bytes.fromhex(body)
            case "scalar":
                return _scalar(*body)
            case "torch.Size":
                return torch.Size(_a(list, body))
            case "torch.dtype":
                return DTYPES[body]
            case "torch.device":
                return torch.device(_a(str, body))
        raise Damaged(f"tree.json has a value of the unknown kind {kind!r:.40}")

    def _pairs(self, body: Any, depth: int) -> dict[str | int, Any]:
        pairs = {key: self.value(each, depth + 1) for key, each in _a(list, body)}
        if len(pairs) != len(body) or not {type(key) for key in pairs} <= {str, int}:
            raise Damaged("tree.json has a key twice, or one that is neither a string nor an integer")
        return pairs

    def _entry(self, kind: str, name: str, typed: str, shape: list[int]) -> Any:
        possible = len(_a(list, shape)) <= _MAX_DIMS and all(
            type(size) is int and size >= 0 for size in shape
        )
        if name in self.entries or not possible:
            raise Damaged(f"tree.json names {name!r:.80} twice, or gives it no possible shape")
        itemsize = TENSOR_TYPES[typed].itemsize if kind == "tensor" else ARRAY_TYPES[typed].itemsize
        self._budget -= prod(shape) * itemsize
        if self._budget < 0:
            raise Damaged("tree.json speaks of more than tensors.safetensors can hold")
        if kind == "tensor":
            tensor = torch.empty(shape, dtype=TENSOR_TYPES[typed])
            self.entries[name] = tensor_entry(_a(str, name), tensor)
            return tensor
        array = np.empty(shape, ARRAY_TYPES[typed])
        self.entries[name] = array_entry(_a(str, name), array)
        return array


def _scalar(typed: str, digits: str) -> Any:
    raw = np.frombuffer(bytes.fromhex(digits), np.uint8)
    (value,) = raw.view(ARRAY_TYPES[typed])
    if value.dtype == np.bool_ and raw[0] > 1:
        raise ValueError("a truth value is neither 0 nor 1")
    return value


def _a(kind: type, value: Any) -> Any:
    """The value, which is to be of this type."""
    if type(value) is not kind:
        raise TypeError(f"a {kind.__name__} is expected, and there is a {type(value).__name__}")
    return value
