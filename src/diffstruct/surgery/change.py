"""What is to happen to one width: which of its units stay, and how many are added."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffstruct.errors import StructureError
from diffstruct.width.width import Width


@dataclass(frozen=True)
class Change:
    """A change of one width: the units that stay keep their order, and the new ones come after them.

    Args:
        width: the width.
        keep: indices of the units that stay, ascending.
        add: number of new units.

    Attributes:
        size: units before the change; after it, `width.size` is the new size.

    Example:
        What is kept for each unit, `[n]`, follows a change so:

        >>> import torch
        >>> import diffstruct as ds
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> width = ds.find_widths(model, (torch.ones(2, 3),)).widths["0"]
        >>> change, known = ds.Change(width, keep=(0, 3), add=1), torch.tensor([5.0, 6.0, 7.0, 8.0])
        >>> torch.cat([known[[*change.keep]], torch.zeros(change.add)])
        tensor([5., 8., 0.])

    Raises:
        StructureError: `keep` is not ascending or has an index that the width has not, `add` is negative,
            or no unit would be left.
    """

    width: Width
    keep: tuple[int, ...]
    add: int
    size: int = field(init=False)

    def __post_init__(self) -> None:
        size = self.width.size
        object.__setattr__(self, "size", size)
        ascending = all(a < b for a, b in zip(self.keep, self.keep[1:], strict=False))
        if not ascending or (self.keep and not 0 <= self.keep[0] <= self.keep[-1] < size):
            raise StructureError(
                f"the units of width {self.width.name!r} that stay must be ascending indices below {size}, "
                f"got {self.keep}"
            )
        if self.add < 0 or self.new_size < 1:
            raise StructureError(
                f"width {self.width.name!r} must keep at least one unit and add none or more, got "
                f"{len(self.keep)} to keep and {self.add} to add"
            )

    @property
    def new_size(self) -> int:
        """Units after the change."""
        return len(self.keep) + self.add

    @property
    def move(self) -> Tensor:
        """For each unit after the change its index before it, or -1 for a new unit: int64 `[new_size]`."""
        return torch.tensor((*self.keep, *[-1] * self.add), dtype=torch.int64)
