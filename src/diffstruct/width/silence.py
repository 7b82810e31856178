"""What a silent unit is where normalisations average over the units of a width.

Elsewhere a unit is silent if nobody reads it. `LayerNorm` and `RMSNorm` read all channels to scale each, so
that a channel makes no difference to them only if it equals the mean of all, or zero: which it does if all
that writes it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from torch import Tensor

from diffstruct.errors import StructureError
from diffstruct.width.canonical import canonical
from diffstruct.width.layout import NOW, Axis, Layout, Product, Sizes, length, spread
from diffstruct.width.width import READERS, Role, Slot, Width

NO_OTHERS: Mapping[Axis, Tensor] = MappingProxyType({})


def writers(width: Width) -> Iterator[Slot]:
    """The slots of all that the units are computed with that normalisations average over.

    Those of a tied embedding, which reads them, are among them; those of queries, keys and values are not,
    where a head has channels of the stream.
    """
    inside = () if width.normalisation is None else width.normalisation.inside
    for slot in width.having(Role.INCOMING, *READERS):
        if (slot.role is Role.INCOMING or slot.feeds) and (slot.module, slot.name, slot.dim) not in inside:
            yield slot


def silence_writers(
    width: Width,
    slot: Slot,
    value: Tensor,
    silent: Tensor,
    sizes: Sizes = NOW,
    others: Mapping[Axis, Tensor] = NO_OTHERS,
) -> None:
    """Write what makes units silent for the normalisations that average over them.

    Args:
        width: has a `normalisation`.
        slot: one of its `writers`.
        value: the tensor, or a new value of it: written in place.
        silent: which units are to be silent, bool `[units]`; not all of them.
        sizes: of the axes of `value`.
        others: of other widths which units are to be silent, bool `[units]`, by axis: these have no part in
            the mean that the silent ones get.
    """
    assert width.normalisation is not None
    if not value.is_floating_point():
        return
    where = spread(silent, slot.layout, width.axis, sizes, False).to(value.device)
    layout = width.normalisation.layout if width.normalisation.centred else None
    own = {each.name: each for each in width.rescaled if each.module is slot.module and each.power < 0}
    if slot.name in own:
        layout = own[slot.name].layout
    elif own and slot.tensor.ndim == 1 and not width.normalisation.returns:
        layout = None  # a bias, which those who read the unit would see
    if layout is None:
        value.index_fill_(slot.dim, where.nonzero().flatten(), 0)
        return
    around = blocks(slot.layout, layout, sizes)
    if around is None:
        raise StructureError(f"{slot} lies otherwise than what width {width.name!r} is normalised with")
    shape = around[0], length(layout, sizes), around[1]
    last = value.movedim(slot.dim, -1)
    entries, where = last.view(*last.shape[:-1], *shape), where.view(shape)
    heard = ~where
    for axis, those in others.items():
        if axis is not width.axis:
            heard &= ~spread(those, slot.layout, axis, sizes, False).to(value.device).view(shape)
    loud = heard.to(value)
    mean = (entries * loud).sum(-2, keepdim=True) / loud.sum(-2, keepdim=True)
    entries.copy_(mean.where(where, entries))


def blocks(layout: Layout, inner: Layout, sizes: Sizes = NOW) -> tuple[int, int] | None:
    """How many entries `layout` has around `inner`, which is a factor of it: outside, and inside; or None."""
    layout, inner = canonical(layout), canonical(inner)
    if layout == inner:
        return 1, 1
    ours = layout.factors if isinstance(layout, Product) else (layout,)
    theirs = inner.factors if isinstance(inner, Product) else (inner,)
    for start in range(len(ours) - len(theirs) + 1):
        stop = start + len(theirs)
        if ours[start:stop] == theirs:
            outside, inside = ours[:start], ours[stop:]
            return math.prod(length(f, sizes) for f in outside), math.prod(length(f, sizes) for f in inside)
    return None
