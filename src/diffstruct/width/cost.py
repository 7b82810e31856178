"""What a model of given sizes costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from diffstruct.width.depth import BlockSlot, Depth
from diffstruct.width.layout import Axis, Layout, length
from diffstruct.width.width import Width

Cost: TypeAlias = Callable[[Mapping[str, int]], float]
"""What a model costs whose widths have so many units, by their names."""


class ParameterCount:
    """The parameters of a model, by the sizes of its widths.

    Args:
        model: the model.
        widths: of it, by name; of a depth's blocks, the average counts.

    Example:
        >>> import torch
        >>> import diffstruct as ds
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> found = ds.find_widths(model, (torch.ones(1, 3),))
        >>> count = ds.ParameterCount(model, found.widths)
        >>> count({"0": 8}), count({"0": 7})
        (50.0, 44.0)
    """

    def __init__(self, model: nn.Module, widths: Mapping[str, Width]) -> None:
        self._axes = {name: width.axis for name, width in widths.items()}
        tensors = {id(tensor): tensor for tensor in model.parameters()}
        layouts: dict[int, dict[int, Layout]] = {}
        for slot in (slot for width in widths.values() for slot in width.slots):
            if id(slot.tensor) in tensors and not isinstance(slot, BlockSlot):
                layouts.setdefault(id(slot.tensor), {})[slot.dim] = slot.layout
        depths = {
            id(parameter): depth
            for depth in widths.values()
            if isinstance(depth, Depth)
            for unit in range(depth.size)
            for parameter in depth.parameters(unit)
        }
        self._depths = {name: width.size for name, width in widths.items() if isinstance(width, Depth)}
        self._fixed = sum(t.numel() for key, t in tensors.items() if key not in layouts and key not in depths)
        self._changing: list[tuple[int, tuple[Layout, ...], str | None]] = []
        """Entries that do not change, layouts that do, and the depth whose blocks have the tensor."""
        for key in (key for key in tensors if key in layouts or key in depths):
            own, depth = layouts.get(key, {}), depths.get(key)
            entries = _other_entries(tensors[key], own)
            self._changing.append((entries, tuple(own.values()), None if depth is None else depth.name))

    def __call__(self, sizes: Mapping[str, int]) -> float:
        """The parameters of the model at these sizes."""
        by_axis: dict[Axis, int] = {axis: sizes[name] for name, axis in self._axes.items()}
        total = float(self._fixed)
        for entries, layouts, depth in self._changing:
            count = float(entries)
            for layout in layouts:
                count *= length(layout, by_axis)
            if depth is not None:  # of so many blocks as there are each has its own; of fewer, the average
                count *= sizes[depth] / self._depths[depth]
            total += count
        return total


def unit_costs(cost: Cost, sizes: Mapping[str, int]) -> dict[str, float]:
    """What the model would save with one unit less of each width, by name; it follows the other sizes."""
    whole = cost(sizes)
    return {name: max(whole - cost({**sizes, name: size - 1}), 0.0) for name, size in sizes.items()}


def cost_shares(
    cost: Cost, widths: Mapping[str, Width]
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """The share of the cost of a unit of each width, and how much more or less than it each block takes.

    The shares of all units of all widths add up to one. A block contains units, so that its share is counted
    beside theirs: of what they cost together or, if that is more, of what the model costs.

    Args:
        cost: of the model, by the sizes of its widths.
        widths: by name.

    Returns:
        Shares by name; and for each depth `[n]`, with an average of one.
    """
    sizes = sizes_of(widths.values())
    costs = unit_costs(cost, sizes)
    total = sum(costs[name] * size for name, size in sizes.items() if not isinstance(widths[name], Depth))
    whole = max(total, cost(sizes)) or 1.0
    shares, weights = {}, {}
    for name, width in widths.items():
        of = whole if isinstance(width, Depth) else total or 1.0
        shares[name] = max(costs[name] / of, 1e-12)
        if isinstance(width, Depth):
            counts = np.array([sum(p.numel() for p in width.parameters(i)) for i in range(width.size)], float)
            weights[name] = counts / max(counts.mean(), 1.0)
    return shares, weights


def sizes_of(widths: Iterable[Width]) -> dict[str, int]:
    """Units now, by the widths' names."""
    return {width.name: width.size for width in widths}


def _other_entries(tensor: torch.Tensor, learned: Mapping[int, Layout]) -> int:
    return torch.Size(size for dim, size in enumerate(tensor.shape) if dim not in learned).numel()
