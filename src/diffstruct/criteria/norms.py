"""Norms of weights as importance: tensors in, one number per unit out. Pure.

The paper's revisions differ in nothing but this (arXiv:1606.06216): revisions 1 and 2 read a trainable
multiplier, revision 3 the L1 norm of the outgoing weights.
"""

from __future__ import annotations

import threading
from collections.abc import Collection

import torch
from torch import Tensor

from diffstruct.errors import StructureError
from diffstruct.width import Axis, Role, Slot, Width
from diffstruct.width.layout import along, copies
from diffstruct.width.parts import belongs


def priced(widths: Collection[Width], roles: Collection[Role]) -> list[tuple[Tensor, Tensor | None]]:
    """The tensors in slots of these roles, each once, and which of their entries a price acts on.

    It acts on entries of units of these widths; None stands for all entries, else bool, to be broadcast.
    """
    learned = {width.axis for width in widths}
    found: dict[int, tuple[Tensor, Tensor | None]] = {}
    for slot in (slot for width in widths for slot in width.having(*roles)):
        tensor, which = slot.tensor, belongs(slot.layout, learned)
        if which is not None:
            which = along(which, slot.dim, tensor.ndim).to(tensor.device)
            _, before = found.get(id(tensor), (tensor, torch.zeros_like(which)))
            which = None if before is None else before | which
        found[id(tensor)] = tensor, which
    return [*found.values()]


def multiplier(width: Width) -> Tensor:
    """The trainable multiplier of each unit, `[n]` (revisions 1 and 2).

    It is the absolute value, since a multiplier of either sign counts; under the paper's floor it is
    never negative.

    Raises:
        StructureError: the width has no multiplier.
    """
    slots = list(width.having(Role.MULTIPLIER))
    if not slots:
        raise StructureError(
            f"width {width.name!r} has no multiplier: put a ds.nn.Multiplier among its readers, "
            "or use criterion=ds.OutgoingNorm()"
        )
    return _total([_l1_norm(slot, width.axis) for slot in slots])


def outgoing(width: Width) -> Tensor:
    """The L1 norm of each unit's outgoing weights, `[n]` (revision 3).

    `s_i = (sum_y |W_hy[y, i]| + V * mean_j |W_hh[j, i]|) / 2`, where V is the number of rows that read the
    width from outside (the paper's 4 symbols): the recurrent part is scaled so that it counts as much as
    the other at any width.

    Raises:
        StructureError: nothing outside the layer reads the width.
    """
    readers = list(width.having(Role.OUTGOING))
    if not readers:
        raise StructureError(
            f"nothing reads width {width.name!r}: say which modules read the layer's output with "
            f"`{width.name}.feeds(module, ...)`"
        )
    outside = _total([_l1_norm(slot, width.axis) for slot in readers])
    recurrent = list(width.having(Role.RECURRENT))
    if not recurrent:
        return outside
    scale = sum(fan_out(slot, width.axis) for slot in readers)
    inside = [_l1_norm(slot, width.axis) / fan_out(slot, width.axis) for slot in recurrent]
    return 0.5 * (outside + scale * _total(inside))


def fan_out(slot: Slot, axis: Axis) -> int:
    """Entries of the slot's tensor that belong to one unit of `axis`."""
    tensor = slot.tensor
    return tensor.numel() // tensor.shape[slot.dim] * copies(slot.layout, axis)


def _l1_norm(slot: Slot, axis: Axis) -> Tensor:
    """The L1 norm of each unit's entries: `[units]`."""
    weights = slot.tensor.detach()
    if weights.ndim == 1:  # whose sum over all other dimensions is itself
        return slot.per_unit(weights.abs(), axis)
    return slot.per_unit(torch.abs(weights, out=_scratch.like(weights)), axis)


class _Scratch(threading.local):
    """Memory that is used again and again: new memory takes ten times as long as the sum of what is in it."""

    def __init__(self) -> None:
        self._flat: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def like(self, tensor: Tensor) -> Tensor:
        """A contiguous tensor of the same shape, not yet written."""
        key = tensor.dtype, tensor.device
        flat = self._flat.get(key)
        if flat is None or flat.numel() < tensor.numel():
            self._flat[key] = flat = tensor.new_empty(tensor.numel())
        return flat[: tensor.numel()].view(tensor.shape)


_scratch = _Scratch()


def _total(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
