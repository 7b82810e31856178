"""Several processes start from the same: whatever was told from weights before a wrapper made these equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from diffstruct.distributed import Processes
from diffstruct.width import Depth, Slot, Width


def join(
    processes: Processes, widths: Mapping[str, Width], facts: object, remembered: Sequence[Tensor]
) -> None:
    """Make sure that processes mean the same, and draw new units alike.

    Args:
        processes: that train the model.
        widths: of it, by name. What their new units and blocks are drawn from becomes that of rank 0.
        facts: that must be the same on all processes, besides the widths.
        remembered: copies of weights, which become those of rank 0.

    Raises:
        StructureError: see `Processes.join`.
    """
    places = [(name, width.size, [*map(str, width.slots)]) for name, width in widths.items()]
    processes.join((facts, places), remembered)
    if processes.size == 1:
        return
    slots = dict.fromkeys(slot for width in widths.values() for slot in width.slots)
    stacks = [width.stack for width in widths.values() if isinstance(width, Depth)]
    drawn = [value for slot in slots for value in (slot.fill, slot.scale) if value is not None]
    drawn += [value for stack in stacks for pair in stack.moments.values() for value in pair]
    first = iter(processes.first(np.array(drawn)).tolist())
    for slot in slots:
        _set(slot, "fill", None if slot.fill is None else next(first))
        _set(slot, "scale", None if slot.scale is None else next(first))
    for stack in stacks:
        stack.moments = {name: (next(first), next(first)) for name in stack.moments}


def _set(slot: Slot, name: str, value: float | None) -> None:
    object.__setattr__(slot, name, value)  # where slots lie, by which they are told apart, stays
