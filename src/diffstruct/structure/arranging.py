"""Which blocks must leave and enter so that a container has blocks of given origins, in a given order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher

import numpy as np
import torch
from torch import nn

from diffstruct.errors import StructureError
from diffstruct.rule import Decision, RuleState, decision
from diffstruct.surgery import Birth, newborn
from diffstruct.width import Depth, Width, outside
from diffstruct.width.depth import children_of

Arrangement = Sequence[int | None]
"""The origins of a container's children, in their order; None for a child that is no block."""


def arrangement(depth: Depth) -> list[int | None]:
    """The blocks of a depth as they stand now."""
    origins = {block.module: block.origin for block in depth.stack.blocks}
    return [origins.get(child) for child in children_of(depth.stack.container)]


def arranged(
    model: nn.Module, depth: Depth, wanted: Arrangement, memory: RuleState, widths: Mapping[str, Width]
) -> tuple[Decision, list[Birth]]:
    """What gives a depth the blocks that are wanted; as many as possible of those that there are stay.

    Args:
        model: the model.
        depth: of it.
        wanted: the arrangement.
        memory: the rule's, of the blocks that there are.
        widths: of the model, by name.

    Returns:
        The decision, and the blocks that enter: drawn, until their state is loaded.

    Raises:
        StructureError: there is no block that one which is wanted could be a copy of, or a child of the
            container that is no block would have to come or go.
    """
    now, blocks = arrangement(depth), {block.module: block for block in depth.stack.blocks}
    if now.count(None) != [*wanted].count(None):
        raise StructureError(
            f"the state dict has {[*wanted].count(None)} children of {depth.name!r} that are no blocks, "
            f"where the model has {now.count(None)}: it is of another model"
        )
    children = children_of(depth.stack.container)
    stays = {then: place for place, then in _matches(now, wanted)}
    units = {block.module: unit for unit, block in enumerate(depth.stack.blocks)}
    kept = {units[children[place]] for place in stays.values() if children[place] in units}
    generator, births = torch.Generator().manual_seed(0), []
    for place, origin in enumerate(wanted):
        if place in stays:
            continue
        sibling = next((each for each in blocks.values() if each.origin == origin and each.copies), None)
        if sibling is None:
            raise StructureError(
                f"the state dict has a block of {depth.name!r} that is a copy of block {origin} of the model "
                "as it came, of which there is none any more: load it into a model that was made anew"
            )
        behind = next((stays[later] for later in range(place, len(wanted)) if later in stays), None)
        own = outside(widths.values(), [sibling.module]) | depth.stack.shared
        before = None if behind is None else children[behind]
        births.append(newborn(model, depth, sibling, before, own, generator))
    removed = np.array([unit not in kept for unit in range(depth.size)], np.bool_)
    return decision(removed, len(births), memory), births


def _matches(now: Arrangement, wanted: Arrangement) -> Iterator[tuple[int, int]]:
    """Places now and then of the children that stay: all that are no blocks, and between these such blocks as
    have the same order."""
    for begin, end in zip(_stretches(now), _stretches(wanted), strict=True):
        old, new = now[slice(*begin)], wanted[slice(*end)]
        for match in SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks():
            yield from ((begin[0] + match.a + i, end[0] + match.b + i) for i in range(match.size))
        if begin[1] < len(now):
            yield begin[1], end[1]


def _stretches(children: Arrangement) -> list[tuple[int, int]]:
    """Where the blocks begin and end that stand between two children that are no blocks."""
    ends = [place for place, origin in enumerate(children) if origin is None] + [len(children)]
    return [(begin, end) for begin, end in zip([0, *(end + 1 for end in ends[:-1])], ends, strict=True)]
