"""What changes do to the dimensions of a tensor: which entries stay, and where new ones are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffstruct.errors import StructureError
from diffstruct.surgery.change import Change
from diffstruct.width.layout import Axis, Layout, sources
from diffstruct.width.parts import whole
from diffstruct.width.width import Slot, Width


@dataclass(frozen=True)
class Cut:
    """What happens along one dimension: which old entry goes to which new position.

    Args:
        source: positions in the old dimension of the entries that stay, int64.
        target: their positions in the new dimension, int64.
        length: entries of the new dimension.
    """

    source: Tensor
    target: Tensor
    length: int

    @staticmethod
    def of(source: Tensor) -> Cut:
        """The cut that takes each new entry from the old position in `source`; -1 is a new entry."""
        target = (source >= 0).nonzero().flatten()
        return Cut(source[target], target, len(source))

    def apply(self, tensor: Tensor, dim: int, fill: float = 0.0) -> Tensor:
        """A new tensor whose surviving entries are those of `tensor`, and whose new ones are `fill`."""
        kept = tensor.detach().index_select(dim, self.source.to(tensor.device))
        if len(self.target) == self.length:  # nothing is new
            return kept
        shape = [*tensor.shape]
        shape[dim] = self.length
        new = torch.full(shape, fill, dtype=tensor.dtype, device=tensor.device)
        return new.index_copy_(dim, self.target.to(tensor.device), kept)


Cuts = Mapping[int, Cut]
"""The cuts of one tensor, by dimension."""


def cut_along(tensor: Tensor, cuts: Cuts, fill: float = 0.0) -> Tensor:
    """`tensor` after all its cuts; new entries are `fill`."""
    for dim, cut in cuts.items():
        tensor = cut.apply(tensor, dim, fill)
    return tensor


def cut_and_fill(tensor: Tensor, cuts: Cuts, new: Tensor) -> Tensor:
    """`tensor` after all its cuts; new entries are those of `new` in the same places."""
    survives = cut_along(torch.ones_like(tensor, dtype=torch.bool), cuts)
    return torch.where(survives, cut_along(tensor, cuts), new.to(tensor))


def cuts_of(changes: Sequence[Change]) -> dict[Tensor, Cuts]:
    """The cuts of every tensor that the changes touch; a tensor that several modules share is cut once.

    One cut does all that the changes do in a dimension, since several widths may lie along it.

    Raises:
        StructureError: a width is changed twice or has another size than its change was made for, or two
            slots describe one dimension differently.
    """
    moves = _moves(changes)
    made: dict[Layout, Cut] = {}
    cuts: dict[Tensor, dict[int, Cut]] = {}
    known: dict[tuple[Tensor, int], tuple[Width, Slot]] = {}
    for width in (change.width for change in changes):
        width.check_lengths()
        for slot in width.slots:
            other, same = known.setdefault((slot.tensor, slot.dim), (width, slot))
            if same.layout != slot.layout and whole(same.layout) != whole(slot.layout):
                raise StructureError(
                    f"{slot} belongs to width {width.name!r} and, as {same}, to {other.name!r}: "
                    "let one width cover both, or one layout mention both"
                )
            if same is not slot:
                continue
            layout = whole(slot.layout)
            if layout not in made:
                made[layout] = Cut.of(sources(layout, moves))
            cuts.setdefault(slot.tensor, {})[slot.dim] = made[layout]
    return {**cuts}


def _moves(changes: Sequence[Change]) -> dict[Axis, Tensor]:
    """What becomes of the units of each axis: see `Change.move`."""
    moves: dict[Axis, Tensor] = {}
    for change in changes:
        if change.size != change.width.size:
            raise StructureError(
                f"a change was made for {change.size} units of width {change.width.name!r}, which has "
                f"{change.width.size} now: make the change again"
            )
        if change.width.axis in moves:
            raise StructureError(
                f"width {change.width.name!r} is changed twice in one operation: make one change of the two"
            )
        moves[change.width.axis] = change.move
    return moves
