"""In which order the integers that may hold a size are tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from diffstruct.couple.attributes import Candidate

MANY = 8
"""As many candidates are tried one by one."""


def subsets(candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, ...]]:
    """All, those that are likely, none, each, each pair, all but one: all subsets would take too long.

    Those of one kind belong together; if that is of no help, and they are few, they are taken one by one.
    """
    kinds: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        kinds.setdefault(candidate.kind, []).append(candidate)
    likely = [candidate for candidate in candidates if candidate.likely]
    yield tuple(candidates)
    if 0 < len(likely) < len(candidates):
        yield tuple(likely)
    if candidates:
        yield ()
    yield from _some([*kinds.values()])
    if len(kinds) < len(candidates) <= MANY:
        yield from _some([[candidate] for candidate in candidates])


def _some(groups: Sequence[Sequence[Candidate]]) -> Iterator[tuple[Candidate, ...]]:
    for size in sorted({1, 2, len(groups) - 1}):
        if 0 < size < len(groups):
            for chosen in combinations(groups, size):
                yield tuple(candidate for group in chosen for candidate in group)
