"""What follows a size besides the tensors that it lies in: integers, switches, scales, and normalisations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from diffstruct.width.layout import NOW, Layout, Sizes, along, length
from diffstruct.width.parts import factors_where, meant


@dataclass(frozen=True)
class Attribute:
    """A module's Python integer that must equal the length of a layout, such as `in_features`.

    Args:
        module: the module that has it.
        name: the name of the attribute.
        layout: the layout whose length it equals.
        index: which entry of the attribute, if it is a tuple or list, as `normalized_shape` is.
    """

    module: nn.Module
    name: str
    layout: Layout
    index: int | None = None

    def changed(self, value: Any, sizes: Sizes) -> Any:
        """The attribute's `value` after a change to `sizes`: an integer, or a sequence of the same type."""
        size = length(self.layout, sizes)
        if self.index is None:
            return size
        entries = [*value]
        entries[self.index] = size
        return type(value)(entries)


@dataclass(frozen=True)
class WhileEven(Attribute):
    """A switch that must be off once the length of the layout is odd.

    So it is with nested tensors in `nn.TransformerEncoder`, which need an even number of heads.
    """

    def changed(self, value: Any, sizes: Sizes) -> bool:
        """The switch's `value` after a change to `sizes`."""
        return bool(value) and length(self.layout, sizes) % 2 == 0


@dataclass(frozen=True)
class Rescaled:
    """A tensor, or a number, that is multiplied by `(length after / length before) ** power` of a layout.

    A normalisation of `n` channels that gets one more, which is silent, returns the others scaled by
    `sqrt((n + 1) / n)`: a gain with `power` -1/2, and an `eps` with `power` -1, undo that exactly.

    Args:
        module: the module that has it.
        name: the name of the parameter, or of the number.
        layout: of the dimension on whose length it depends.
        power: see above.
        written: of a number: its value, and the length, that the model came with, so that it never drifts.
        part: of a tensor: one of its dimensions, and how it lies, where only the entries that this layout
            means are multiplied, as the queries are in a layer that computes keys and values too.
    """

    module: nn.Module
    name: str
    layout: Layout
    power: float
    written: tuple[float, int] | None = None
    part: tuple[int, Layout] | None = None

    def factor(self, sizes: Sizes, before: Sizes = NOW) -> float:
        """What a tensor is multiplied by in a change from the sizes `before` to `sizes`."""
        return float((length(self.layout, sizes) / length(self.layout, before)) ** self.power)

    def apply(self, tensor: Tensor, sizes: Sizes, before: Sizes = NOW, now: Sizes = NOW) -> Tensor:
        """`tensor`, which has the sizes `now`, after a change from the sizes `before` to `sizes`."""
        factor = self.factor(sizes, before)
        if factor == 1 or self.part is None:
            return tensor if factor == 1 else tensor * factor
        dim, layout = self.part
        return tensor * along(factors_where(meant(layout, now), factor).to(tensor), dim, tensor.ndim)

    def number(self, sizes: Sizes) -> float:
        """The value of a number at `sizes`."""
        assert self.written is not None
        value, own = self.written
        return float(value * (length(self.layout, sizes) / own) ** self.power)


@dataclass(frozen=True)
class Normalisation:
    """What is known of a width whose units `LayerNorm` or `RMSNorm` average over.

    A unit of it is silent, for these, if it equals the mean of all (`LayerNorm`) or zero (`RMSNorm`).

    Args:
        layout: of the dimension that is averaged over.
        centred: whether means are subtracted, as `LayerNorm` does.
        inside: modules, names and dimensions of tensors that units are computed with elsewhere, and that
            do not write what is averaged over.
        returns: whether what is normalised goes on as the units of the width, as with norms behind the sum
            (post-norm), so that biases write units, too.
    """

    layout: Layout
    centred: bool
    inside: frozenset[tuple[nn.Module, str, int]] = frozenset()
    returns: bool = False
