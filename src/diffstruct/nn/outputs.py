"""What a model returned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def tensors_in(outputs: Any) -> list[Tensor]:
    """The tensors that a model returned, in nested sequences, mappings and dataclasses.

    Other objects, such as a cache of keys and values, are the model's own business and may change.
    """
    if isinstance(outputs, Tensor):
        return [outputs]
    inner: Iterable[Any] = ()
    if isinstance(outputs, Mapping):
        inner = outputs.values()
    elif isinstance(outputs, (tuple, list)):
        inner = outputs
    elif is_dataclass(outputs) and not isinstance(outputs, type):
        inner = [getattr(outputs, each.name) for each in fields(outputs)]
    return [tensor for each in inner for tensor in tensors_in(each)]
