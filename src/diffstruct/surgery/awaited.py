"""New values that are there one after the other, and what is written into each once it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from diffstruct.distributed import whole
from diffstruct.errors import StructureError

Write: TypeAlias = Callable[..., object]
"""Gets a new value, which it writes into, and behind it what it needs beside that."""


class Awaited(Mapping[Tensor, Tensor]):
    """In the place of new values that are not there yet, tensors of their shapes that have no memory.

    Args:
        shapes: of the new values, by the tensors that they replace.
    """

    def __init__(self, shapes: Mapping[Tensor, Sequence[int]]) -> None:
        self._empty = {
            tensor: torch.empty([*shape], dtype=tensor.dtype, device="meta")
            for tensor, shape in shapes.items()
        }
        self._writes: dict[Tensor, list[tuple[Write, list[Tensor]]]] = {tensor: [] for tensor in shapes}

    def __getitem__(self, tensor: Tensor) -> Tensor:
        return self._empty[tensor]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._empty)

    def __len__(self) -> int:
        return len(self._empty)

    def check(self) -> None:
        """Refuse what was written into values themselves, which were not there.

        Raises:
            StructureError: anything was.
        """
        if any(value._version for value in self._empty.values()):
            raise StructureError(
                "new units of a model that fully_shard has sharded were written into values that are not "
                "there yet: in an initialize of your own, write through NewUnits.write, or subclass "
                "Initialization"
            )

    def later(self, tensor: Tensor, write: Write, beside: Sequence[Tensor]) -> None:
        """Have something written into a new value once it is there."""
        self._writes[tensor].append((write, [*beside]))

    def beside(self, tensor: Tensor) -> list[Tensor]:
        """What is needed beside a new value, for all that is to be written into it."""
        return [each for _, needed in self._writes[tensor] for each in needed]

    def write(self, tensor: Tensor, value: Tensor, beside: Sequence[Tensor]) -> None:
        """Write what was to be written; `beside` are those of the method of this name, whole."""
        others = iter(beside)
        for write, needed in self._writes.pop(tensor):
            write(value, *(next(others) for _ in needed))


def write_into(values: Mapping[Tensor, Tensor], tensor: Tensor, write: Write, *beside: Tensor) -> None:
    """Write into a new value: now, or when it is there.

    Args:
        values: the new values, by the tensors that they replace.
        tensor: one of these.
        write: gets its new value, and the whole of what is needed beside that.
        beside: what is needed, sharded or not.
    """
    if isinstance(values, Awaited):
        values.later(tensor, write, beside)
    else:
        write(values[tensor], *map(whole, beside))
