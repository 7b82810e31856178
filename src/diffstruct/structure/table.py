"""The widths of a structure as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn

from diffstruct.structure.history import History
from diffstruct.width import Width
from diffstruct.width.table import aligned, places


def table(
    model: nn.Module, widths: Iterable[Width], reserve: Callable[[Width], int], history: History
) -> str:
    """A row for each width: units, sub-threshold units, units added and removed so far, and its places."""
    rows = [("width", "units", "reserve", "added", "removed", "places")]
    for width in widths:
        counts = width.size, reserve(width), history.added(width.name), history.removed(width.name)
        units, in_reserve, added, removed = map(str, counts)
        rows.append((width.name, units, in_reserve, added, removed, places(width, model)))
    return aligned(rows)
