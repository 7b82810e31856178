"""What a model returned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def tensors_in(outputs: Any) -> list[Tensor]:
    """The tensors that a model returned, in nested sequences, mappings and dataclasses.

    Other objects, such as a cache of keys and values, are the model's own business and may change. So are, in
    a mapping that has `logits`, all tensors besides these and the `loss`: hidden states have learned sizes.
    """
    if isinstance(outputs, Tensor):
        return [outputs]
    inner: Iterable[Any] = ()
    if isinstance(outputs, Mapping):
        told = {"loss", "logits"} if "logits" in outputs else outputs.keys()
        inner = [value for key, value in outputs.items() if key in told]
    elif isinstance(outputs, (tuple, list)):
        inner = outputs
    elif is_dataclass(outputs) and not isinstance(outputs, type):
        inner = [getattr(outputs, each.name) for each in fields(outputs)]
    return [tensor for each in inner for tensor in tensors_in(each)]
