"""State dicts: plain trees of tensors, numbers and strings, every entry of which is checked as it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from diffstruct.errors import StructureError


def tensor_of(array: NDArray[Any]) -> Tensor:
    """A tensor of its own with the values of an array."""
    return torch.from_numpy(array.copy())


class Fields:
    """The entries of a mapping in a state dict.

    Args:
        value: the mapping.
        where: its place in the state dict, for errors.

    Raises:
        StructureError: it is no mapping with names as keys; as each method does where an entry is missing or
            not what it should be.
    """

    def __init__(self, value: Any, where: str = "") -> None:
        self.where = where
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise self.wrong("", f"is a {type(value).__name__}, not a dict with names as keys")
        self.value: Mapping[str, Any] = value

    def wrong(self, key: str, why: str) -> StructureError:
        """What to raise where an entry is not what it should be."""
        place = ".".join(each for each in (self.where, key) if each)
        what = f"entry {place!r} of the structure's state dict" if place else "the structure's state dict"
        return StructureError(f"{what} {why}: it is damaged, or of another version or model")

    def __getitem__(self, key: str) -> Any:
        if key not in self.value:
            raise self.wrong(key, "is missing")
        return self.value[key]

    def fields(self, key: str) -> Fields:
        """A mapping within."""
        return Fields(self[key], ".".join(each for each in (self.where, key) if each))

    def each(self) -> dict[str, Fields]:
        """All entries, which are mappings themselves."""
        return {key: self.fields(key) for key in self.value}

    def whole(self, key: str, least: int = 0) -> int:
        """A whole number of at least `least`."""
        value = self[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.wrong(key, f"is {value!r:.80}, not a whole number of at least {least}")
        return value

    def number(self, key: str) -> float:
        """A number."""
        value = self[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(key, f"is {value!r:.80}, not a number")
        return float(value)

    def flag(self, key: str) -> bool:
        """True or False."""
        value = self[key]
        if not isinstance(value, bool):
            raise self.wrong(key, f"is {value!r:.80}, not True or False")
        return value

    def text(self, key: str) -> str:
        """A string."""
        value = self[key]
        if not isinstance(value, str):
            raise self.wrong(key, f"is {value!r:.80}, not a string")
        return value

    def items(self, key: str) -> Sequence[Any]:
        """A list."""
        value = self[key]
        if not isinstance(value, (list, tuple)):
            raise self.wrong(key, f"is a {type(value).__name__}, not a list")
        return value

    def list_of_fields(self, key: str) -> list[Fields]:
        """A list of mappings."""
        place = ".".join(each for each in (self.where, key) if each)
        return [Fields(each, f"{place}[{index}]") for index, each in enumerate(self.items(key))]

    def tensor(self, key: str, shape: Sequence[int] | None = None) -> Tensor:
        """A tensor, of this shape if one is given, with entries of its own."""
        value = self[key]
        if not isinstance(value, Tensor):
            raise self.wrong(key, f"is a {type(value).__name__}, not a tensor")
        if shape is not None and [*value.shape] != [*shape]:
            raise self.wrong(key, f"has shape {[*value.shape]}, not {[*shape]}")
        return value.detach().clone()

    def array(self, key: str, shape: Sequence[int] | None, dtype: DTypeLike) -> NDArray[Any]:
        """A tensor of this type, and shape if one is given, as an array of its own."""
        values: NDArray[Any] = self.tensor(key, shape).cpu().numpy()
        if values.dtype != np.dtype(dtype):
            raise self.wrong(key, f"has type {values.dtype}, not {np.dtype(dtype)}")
        return values
