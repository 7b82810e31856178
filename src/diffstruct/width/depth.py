"""`Depth`: a width whose units are residual blocks. `BlockSlot`: weights that silence one block.

A block is a child of a container and adds something to what it is given. Its *last weights* are those that
this something is computed with last: with these at zero the block returns what it got, so that they are to
a block what outgoing weights are to a unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from diffstruct.width.layout import Axis
from diffstruct.width.width import Role, Slot, Width


@dataclass(frozen=True)
class BlockSlot(Slot):
    """A tensor that belongs as a whole to one unit of a depth.

    Args:
        unit: the index of the block.
    """

    unit: int = 0

    def by_entry(self, values: Tensor, axis: Axis) -> Tensor:
        """The value of the block that the tensor belongs to, `[1, 1, ...]`."""
        return values[self.unit].reshape([1] * self.tensor.ndim)

    def per_unit(self, values: Tensor, axis: Axis) -> Tensor:
        """The sum of all `values` at the block that the tensor belongs to, and zero elsewhere: `[units]`."""
        sums = values.new_zeros(axis.size)
        sums[self.unit] = values.sum()
        return sums

    def __str__(self) -> str:
        return f"{type(self.module).__name__}.{self.name}"


@dataclass(frozen=True, eq=False)
class Block:
    """A residual block.

    Args:
        module: the child of the container.
        last: its last weights, module and name each.
        copies: whether a silent copy of it may stand behind it, and is known to change nothing.
        origin: which of the blocks that the model came with it is, or is a copy of; alike ones have the
            number of the first.
    """

    module: nn.Module
    last: tuple[tuple[nn.Module, str], ...]
    copies: bool = True
    origin: int = 0


@dataclass(frozen=True)
class Counter:
    """An integer that holds the number of blocks, or a list with an entry for each child of the container.

    Args:
        module: a module of the model.
        holder: the attribute of the module whose value, a configuration, has the integer; None: the module
            itself has it.
        name: the name of the attribute.
    """

    module: nn.Module
    holder: str | None
    name: str

    def owner(self, module: nn.Module) -> Any:
        """What has the integer, by the module, or by the twin of it in a copy of the model."""
        return module if self.holder is None else getattr(module, self.holder)


@dataclass(frozen=True)
class Index:
    """An integer in every block that holds the block's place.

    Args:
        path: of the module that has it, within the block.
        name: the name of the attribute.
        first: its value in the container's first child.
    """

    path: str
    name: str
    first: int


@dataclass
class Stack:
    """The blocks of a depth as they are now; only surgery changes them.

    Args:
        container: their parent.
        blocks: in the order of units: new ones come last, wherever they stand in the container.
        counters: the integers that hold their number.
        indices: those that hold their places.
        shared: the axes of widths that do not live in a block alone, such as a residual stream, and that new
            blocks share, even if all other blocks have gone.
        most: blocks that the model came with.
        front: whether a silent copy of the first block may stand in front of it.
        moments: mean and standard deviation of every parameter of a block, by its name in the block, as the
            model came with them: new blocks are drawn from these.
    """

    container: nn.Module
    blocks: list[Block]
    counters: Sequence[Counter] = ()
    indices: Sequence[Index] = ()
    moments: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    shared: set[Axis] = field(default_factory=set)
    most: int = 0
    front: bool = False


class Depth(Width):
    """A size that is learned, whose units are the residual blocks of a container.

    Args:
        name: that of the container.
        stack: the blocks.

    Example:
        >>> from torch import nn
        >>> import torch
        >>> import diffstruct as ds
        >>> branch = lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        >>> model = nn.Sequential(nn.Linear(3, 4), ds.nn.Residual(branch, depth=2), nn.Linear(4, 1))
        >>> depth = ds.find_depths(model, (torch.ones(5, 3),)).depths["1"]
        >>> depth.size, depth.blocks[0] is model[1][0]
        (2, True)
    """

    stack: Stack

    def __init__(self, name: str, stack: Stack) -> None:
        fields = {"name": name, "axis": Axis(len(stack.blocks)), "stack": stack, "normalisation": None}
        for key, value in {**fields, "attributes": (), "rescaled": ()}.items():
            object.__setattr__(self, key, value)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The last weights of all blocks."""
        return tuple(
            BlockSlot(module, name, 0, Role.OUTGOING, self.axis, unit=unit)
            for unit, block in enumerate(self.stack.blocks)
            for module, name in block.last
        )

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks, in the order of units."""
        return [block.module for block in self.stack.blocks]

    def parameters(self, unit: int) -> Iterator[nn.Parameter]:
        """The parameters of a block."""
        return self.stack.blocks[unit].module.parameters()

    def check_lengths(self) -> None:
        """Nothing to check: whole tensors have no length that must agree."""

    def __repr__(self) -> str:
        return f"Depth({self.name!r}, size={self.size})"


def children_of(container: nn.Module) -> list[nn.Module]:
    """The children of a container, in the order in which it calls them."""
    return [child for child in container._modules.values() if child is not None]
