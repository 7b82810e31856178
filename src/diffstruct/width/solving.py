"""Which sizes of widths give dimensions of known lengths. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from diffstruct.width.layout import Axis, Layout, axes, formula, length


class NoSizesError(Exception):
    """No sizes of the widths give the lengths; the message says where."""


def solve(lengths: Iterable[tuple[str, Layout, int]], known: Mapping[Axis, int]) -> dict[Axis, int]:
    """The sizes of all axes that follow from how long some layouts are.

    A length with a single unknown size is a linear equation; what it gives makes others such.

    Args:
        lengths: what has the layout, for the error, the layout, and its length.
        known: sizes that are settled before.

    Returns:
        The known sizes and those that follow. An axis that is left out cannot be told from these lengths, as
        the factors of a product cannot.

    Raises:
        NoSizesError: two lengths contradict each other, or one is that of no whole number of units.
    """
    sizes = dict(known)
    left = [*lengths]
    while left:
        later = []
        for what, layout, target in left:
            unknown = [axis for axis in axes(layout) if axis not in sizes]
            if not unknown:
                if length(layout, sizes) != target:
                    raise NoSizesError(
                        f"{what} would have {length(layout, sizes)} entries ({formula(layout)}), not {target}"
                    )
            elif len(unknown) == 1:
                sizes[unknown[0]] = _size(what, layout, target, unknown[0], sizes)
            else:
                later.append((what, layout, target))
        if len(later) == len(left):
            break
        left = later
    return sizes


def _size(what: str, layout: Layout, target: int, axis: Axis, sizes: Mapping[Axis, int]) -> int:
    """The size of the only axis of `layout` that is not known."""
    none, one = (length(layout, {**sizes, axis: size}) for size in (0, 1))
    units, rest = divmod(target - none, one - none)
    if rest or units < 1:
        raise NoSizesError(f"{what} has {target} entries, which no number of units gives ({formula(layout)})")
    return units
