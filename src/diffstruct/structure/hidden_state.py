"""Hidden states of recurrent layers follow a change of structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffstruct.errors import StructureError
from diffstruct.surgery import Change, carry
from diffstruct.width import Width


def carry_state(
    state: Any, width: str | None, widths: Mapping[str, Width], changes: Mapping[str, Change]
) -> Any:
    """A hidden state after the changes.

    Args:
        state: a tensor `[..., units]`, or a tuple of such (as an LSTM has), or None.
        width: the name of the width; None where there is only one.
        widths: by name.
        changes: by the widths' names, of those that changed.

    Returns:
        The state for the next step: that of surviving units bit-equal, of new units zero; the same object
        when nothing changed.

    Raises:
        StructureError: the state does not fit the width, or it is unclear which width is meant.
    """
    if width is None:
        if len(widths) > 1:
            raise StructureError(f"say which width the state belongs to: one of {[*widths]}")
        width = next(iter(widths))
    if width not in widths:
        raise StructureError(f"there is no width {width!r}: the widths are {[*widths]}")
    change = changes.get(width)
    if change is None or state is None:
        return state
    if isinstance(state, (tuple, list)):
        return type(state)(carry(part, change) for part in state)
    return carry(state, change)
