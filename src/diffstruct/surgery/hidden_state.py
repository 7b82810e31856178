"""Hidden state that a training loop carries from one step to the next: it changes with its width."""

from __future__ import annotations

from torch import Tensor

from diffstruct.errors import StructureError
from diffstruct.surgery.change import Change
from diffstruct.surgery.cut import Cut


def carry(state: Tensor, change: Change) -> Tensor:
    """Carry a hidden state `[..., size]` through a change: survivors stay bit-equal, new units are zero.

    Args:
        state: of the step just made, when the width had `change.size` units.
        change: of the width whose units lie along the last dimension.

    Returns:
        The state for the next step, `[..., change.new_size]`.

    Raises:
        StructureError: the state's last dimension is not the size that the width had before the change.
    """
    if state.ndim == 0 or state.shape[-1] != change.size:
        raise StructureError(
            f"the state carried along width {change.width.name!r} must be [..., {change.size}], "
            f"got {[*state.shape]}: pass the state of the step just made"
        )
    return Cut.of(change.move).apply(state, state.ndim - 1)
