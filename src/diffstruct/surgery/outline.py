"""What changes will do to each tensor, told from shapes alone, before any value is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.optim import Optimizer

from diffstruct.surgery.change import Change
from diffstruct.surgery.cut import Cuts, cut_along, cut_and_fill, cuts_of
from diffstruct.surgery.optimizer_state import check_optimizer, check_state, initial_value, state_dims
from diffstruct.width.follows import Rescaled
from diffstruct.width.layout import Axis

Attributes: TypeAlias = dict[tuple[nn.Module, str], Any]
"""New values of attributes of modules, by module and name."""


@dataclass(frozen=True)
class Outline:
    """A surgery on widths, of which nothing is done yet; `outline` makes one.

    Args:
        changes: at most one for each width.
        cuts: of each tensor that changes its shape.
        rescaled: what else happens to tensors that depend on a size.
        sizes: that axes will have.
        attributes: of modules, and their new values.
    """

    changes: Sequence[Change]
    cuts: Mapping[Tensor, Cuts]
    rescaled: Mapping[Tensor, Sequence[Rescaled]]
    sizes: Mapping[Axis, int]
    attributes: Attributes

    @property
    def tensors(self) -> list[Tensor]:
        """All that get a new value."""
        return [*self.cuts, *(other for other in self.rescaled if other not in self.cuts)]

    def shape(self, tensor: Tensor) -> list[int]:
        """What a tensor will be shaped like."""
        own = self.cuts.get(tensor, {})
        return [own[dim].length if dim in own else size for dim, size in enumerate(tensor.shape)]

    def value(self, tensor: Tensor, old: Tensor) -> Tensor:
        """The new value of a tensor, or of its copy in a copy of the model; new entries are zero.

        Args:
            tensor: of the model.
            old: its value now, or that of its copy.
        """
        return cut_along(self.scaled(tensor, old), self.cuts.get(tensor, {}))

    def scaled(self, tensor: Tensor, old: Tensor) -> Tensor:
        """The value of a tensor, or of its copy, with what depends on a size, but all of its entries."""
        value = old.detach()
        for each in self.rescaled.get(tensor, ()):
            value = each.apply(value, self.sizes)
        return value

    def gradient(self, tensor: Tensor, old: Tensor) -> Tensor:
        """The new value of a tensor's gradient."""
        return cut_along(old, self.cuts.get(tensor, {}))

    def state(self, tensor: Tensor, optimizer: Optimizer, value: Tensor, key: Any, old: Tensor) -> Tensor:
        """The new value of an entry of the optimizer's state of a tensor, which will be `value`."""
        dims = state_dims(optimizer, key, old, tensor)
        own = {dim: cut for dim, cut in self.cuts.get(tensor, {}).items() if dims[dim]}
        if not own:
            return old
        begin = initial_value(optimizer, key, tensor, value)
        return cut_and_fill(old, own, begin) if isinstance(begin, Tensor) else cut_along(old, own, begin)


def outline(changes: Iterable[Change], optimizers: Sequence[Optimizer] = ()) -> Outline:
    """What changes will do to each tensor.

    Args:
        changes: at most one for each width.
        optimizers: those whose state follows the parameters.

    Raises:
        StructureError: a width is changed twice, two slots describe one dimension differently, a tensor is
            not as long as its slot says, or an optimizer cannot follow.
    """
    changes = [*changes]
    for optimizer in optimizers:
        check_optimizer(optimizer)
    cuts = cuts_of(changes)
    for tensor in cuts:
        for optimizer in optimizers:
            check_state(optimizer, tensor)
    sizes = {change.width.axis: change.new_size for change in changes}
    rescaled, numbers = _rescaled(changes, sizes)
    return Outline(changes, cuts, rescaled, sizes, {**_attributes(changes, sizes), **numbers})


def _attributes(changes: Sequence[Change], sizes: Mapping[Axis, int]) -> Attributes:
    """The new value of every attribute that holds a size; several changes may concern one tuple."""
    values: Attributes = {}
    for change in changes:
        for attribute in change.width.attributes:
            key = attribute.module, attribute.name
            now = values[key] if key in values else getattr(*key)
            values[key] = attribute.changed(now, sizes)
    return values


def _rescaled(
    changes: Sequence[Change], sizes: Mapping[Axis, int]
) -> tuple[dict[Tensor, list[Rescaled]], dict[tuple[nn.Module, str], float]]:
    """What happens to tensors that depend on a size, and the new value of each number that does."""
    tensors: dict[Tensor, list[Rescaled]] = {}
    numbers: dict[tuple[nn.Module, str], float] = {}
    # Several changes may concern one layout, which changes once.
    for each in dict.fromkeys(each for change in changes for each in change.width.rescaled):
        now = getattr(each.module, each.name)
        if isinstance(now, Tensor):
            tensors.setdefault(now, []).append(each)
        else:
            numbers[each.module, each.name] = each.number(sizes)
    return tensors, numbers
