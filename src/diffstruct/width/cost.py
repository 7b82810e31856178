"""What a model of given sizes costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import torch
from torch import nn

from diffstruct.width.layout import Axis, Layout, length
from diffstruct.width.width import Width

Cost: TypeAlias = Callable[[Mapping[str, int]], float]
"""What a model costs whose widths have so many units, by their names."""


class ParameterCount:
    """The parameters of a model, by the sizes of its widths.

    Args:
        model: the model.
        widths: of it, by name.

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
            if id(slot.tensor) in tensors:
                layouts.setdefault(id(slot.tensor), {})[slot.dim] = slot.layout
        self._fixed = sum(t.numel() for key, t in tensors.items() if key not in layouts)
        self._changing: list[tuple[int, tuple[Layout, ...]]] = [
            (_other_entries(tensors[key], own), tuple(own.values())) for key, own in layouts.items()
        ]

    def __call__(self, sizes: Mapping[str, int]) -> float:
        """The parameters of the model at these sizes."""
        by_axis: dict[Axis, int] = {axis: sizes[name] for name, axis in self._axes.items()}
        total = float(self._fixed)
        for entries, layouts in self._changing:
            count = float(entries)
            for layout in layouts:
                count *= length(layout, by_axis)
            total += count
        return total


def unit_costs(cost: Cost, sizes: Mapping[str, int]) -> dict[str, float]:
    """What the model would save with one unit less of each width, by name; it follows the other sizes."""
    whole = cost(sizes)
    return {name: max(whole - cost({**sizes, name: size - 1}), 0.0) for name, size in sizes.items()}


def sizes_of(widths: Iterable[Width]) -> dict[str, int]:
    """Units now, by the widths' names."""
    return {width.name: width.size for width in widths}


def _other_entries(tensor: torch.Tensor, learned: Mapping[int, Layout]) -> int:
    return torch.Size(size for dim, size in enumerate(tensor.shape) if dim not in learned).numel()
