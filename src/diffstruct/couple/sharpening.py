"""Making a model's output depend on the scale of its attention, so that a proof can tell scales apart.

Attention with weights as they are drawn attends to everything alike, whatever its scale is, and attention
with very large ones to one thing only. In between the scale matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from diffstruct.width.follows import Rescaled
from diffstruct.width.layout import along
from diffstruct.width.parts import factors_where, meant
from diffstruct.width.width import Width

FACTORS = (1.0, 8.0, 64.0, 512.0)
"""What weights of attention are multiplied by, to see at which the scale matters most."""


class Sharpening:
    """Weights on which the scores of attention depend.

    Args:
        variants: what each width may be, as `couple.variants` has it.
    """

    def __init__(self, variants: Iterable[Sequence[Sequence[Width]]]) -> None:
        found: dict[tuple[int, object], Rescaled] = {}
        for widths in (each[0] for each in variants):
            for each in widths[-1].rescaled if len(widths) > 1 else ():
                if each.part is not None:
                    found[id(getattr(each.module, each.name)), each.part] = each
        self._weights = [*found.values()]
        self.factor = 1.0

    def __bool__(self) -> bool:
        return bool(self._weights)

    @contextmanager
    def applied(self, factor: float | None = None) -> Iterator[None]:
        """Multiply the weights meanwhile, by `self.factor` unless told otherwise."""
        factor = self.factor if factor is None else factor
        backup = []
        try:
            for each in self._weights if factor != 1 else ():
                tensor: Tensor = getattr(each.module, each.name)
                assert each.part is not None
                dim, layout = each.part
                factors = factors_where(meant(layout), factor).to(tensor)
                backup.append((tensor, tensor.detach().clone()))
                tensor.data.mul_(along(factors, dim, tensor.ndim))
            yield
        finally:
            for tensor, before in reversed(backup):
                tensor.data.copy_(before)


def apart(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """How much two outputs differ, as a share of the largest entry; infinite entries are left out."""
    found = 0.0
    for one, other in zip(ours, theirs, strict=True):
        finite = one.isfinite() & other.isfinite()
        if one.is_floating_point() and finite.any():
            scale = one[finite].abs().max().item()
            found = max(found, (one - other)[finite].abs().max().item() / scale if scale else 0.0)
    return found
