"""The widths of a structure as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from diffstruct.structure.history import History
from diffstruct.width import Width


def table(widths: Iterable[Width], reserve: Mapping[str, int], history: History) -> str:
    """A row for each width: units, sub-threshold units, units added and removed so far, and its places."""
    rows = [("width", "units", "reserve", "added", "removed", "places")]
    for width in widths:
        name = width.name
        counts = width.size, reserve[name], history.added(name), history.removed(name)
        rows.append((name, *map(str, counts), ", ".join(map(str, width.slots))))  # type: ignore[arg-type]
    spans = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(c.ljust(span) for c, span in zip(row, spans, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
