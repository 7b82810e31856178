"""The widths of a structure as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from diffstruct.structure.history import History
from diffstruct.width import Width


def table(widths: Iterable[Width], reserve: Callable[[Width], int], history: History) -> str:
    """A row for each width: units, sub-threshold units, units added and removed so far, and its places."""
    rows = [("width", "units", "reserve", "added", "removed", "places")]
    for width in widths:
        counts = width.size, reserve(width), history.added(width.name), history.removed(width.name)
        units, in_reserve, added, removed = map(str, counts)
        places = ", ".join(map(str, width.slots))
        rows.append((width.name, units, in_reserve, added, removed, places))
    spans = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(c.ljust(span) for c, span in zip(row, spans, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
