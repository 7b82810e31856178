"""Widths that start below the size that the user wrote, and how they grow back to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from diffstruct.distributed import local, whole
from diffstruct.rule import Decision, Rule, RuleState, addition
from diffstruct.states import Fields
from diffstruct.surgery import Change, write_into
from diffstruct.width import Slot, Width
from diffstruct.width.layout import Layout, Sizes, along, axes, length, owners
from diffstruct.width.parts import whole as undivided

Place: TypeAlias = tuple[nn.Module, str]
"""Of a tensor: its module, and its name there."""


class Widening:
    """Gives widths, after the first step, the sizes that the model came with, by the units it came with.

    The sizes that the user wrote are knowledge, and so are the weights that were drawn for them: a deep
    network that begins as a chain of single units is one bottleneck after the other, out of which little
    comes. So the width is there again at once, and the run goes on as if it had begun there. Steps on the way
    there would be too long for the few units that there are: where the learning rate is as high as the whole
    model just bears, runs that double their widths at each step may diverge.

    Args:
        widths: of the model, by name, all at the sizes that it came with.
        largest: the sizes to grow to, by name, of those that do not start there.
    """

    def __init__(self, widths: Mapping[str, Width], largest: Mapping[str, int]) -> None:
        self._largest = dict(largest)
        self._sizes = {name: width.size for name, width in widths.items()}
        self._own: Sizes = {width.axis: width.size for width in widths.values()}
        self._gains = [*dict.fromkeys(each for width in widths.values() for each in width.rescaled)]
        self._layouts: dict[Place, dict[int, Layout]] = {}
        self._written: dict[Place, Tensor] = {}
        self._places: dict[Place, Place] = {}  # of a tensor that several modules share, the one of the first
        first: dict[Tensor, Place] = {}
        for slot in (slot for width in widths.values() for slot in width.slots):
            place = first.setdefault(slot.tensor, (slot.module, slot.name))
            self._places[slot.module, slot.name] = place
            self._layouts.setdefault(place, {})[slot.dim] = undivided(slot.layout)
        self._written = {place: tensor.detach().clone() for tensor, place in first.items()}

    def state_dict(self, names: Mapping[nn.Module, str]) -> dict[str, Any]:
        """The sizes to grow to, and the tensors that the model came with, by the names of modules.

        Where they are sharded, all processes have to ask.
        """
        written = {_name(place, names): whole(value).clone() for place, value in self._written.items()}
        return {"largest": dict(self._largest), "sizes": dict(self._sizes), "written": written}

    @classmethod
    def of_state(cls, widths: Mapping[str, Width], state: Fields, names: Mapping[nn.Module, str]) -> Widening:
        """As it was when `state_dict` was called; the widths may have other sizes now."""
        largest, sizes, written = state.fields("largest"), state.fields("sizes"), state.fields("written")
        made = cls(widths, {name: largest.whole(name, 1) for name in largest.value})
        made._sizes = {name: sizes.whole(name, 1) for name in widths}
        made._own = {width.axis: made._sizes[name] for name, width in widths.items()}
        for place, now in made._written.items():
            shape = [*now.shape]
            for dim, layout in made._layouts[place].items():
                shape[dim] = length(layout, made._own)
            made._written[place] = written.tensor(_name(place, names), shape).to(local(now))
        return made

    def decisions(self, states: Mapping[str, RuleState]) -> dict[str, Decision]:
        """Bring the widths that have not reached their size there; leave the others alone.

        Args:
            states: the rule's memory of each width's units, by name.
        """
        found = {}
        for name, memory in states.items():
            size = len(memory.ages)
            found[name] = addition(memory, max(0, self._largest.get(name, size) - size))
        return found

    @property
    def remembered(self) -> Sequence[Tensor]:
        """The weights that the model came with."""
        return [*self._written.values()]

    @torch.no_grad()
    def initialize(self, changes: Sequence[Change], values: Mapping[Tensor, Tensor]) -> None:
        """Write the new units' entries, as the model came with them."""
        sizes = {change.width.axis: change.new_size for change in changes}
        slots: dict[Tensor, list[tuple[Slot, Change]]] = {}
        for change in changes:
            for slot in change.width.slots:
                slots.setdefault(slot.tensor, []).append((slot, change))
        for tensor in values:
            if tensor not in slots:  # a tensor that is rescaled, and has no units
                continue
            place = self._places[slots[tensor][0][0].module, slots[tensor][0][0].name]
            write = partial(self._write, tensor, place, slots[tensor], sizes)
            write_into(values, tensor, write, self._written[place])

    def _write(
        self,
        tensor: Tensor,
        place: Place,
        slots: Sequence[tuple[Slot, Change]],
        sizes: Sizes,
        value: Tensor,
        written: Tensor,
    ) -> None:
        new = torch.zeros_like(value, dtype=torch.bool)
        for slot, change in slots:
            units = owners(slot.layout, change.width.axis, sizes)
            new |= along((units >= len(change.keep)).to(new.device), slot.dim, new.ndim)
        value.copy_(torch.where(new, self._as_it_came(tensor, place, sizes, written), value))

    def _as_it_came(self, tensor: Tensor, place: Place, sizes: Sizes, written: Tensor) -> Tensor:
        """The entries that a tensor came with, of which `written` are all, of the units at these sizes."""
        for dim, layout in self._layouts[place].items():
            there = torch.ones(written.shape[dim], dtype=torch.bool)
            for axis in axes(layout):
                there &= owners(layout, axis, self._own) < sizes.get(axis, axis.size)
            written = written.index_select(dim, there.nonzero().flatten().to(written.device))
        for each in self._gains:  # what surgery would have made of it on the way from the sizes that it had
            if getattr(each.module, each.name) is tensor:
                written = each.apply(written, sizes, self._own, sizes)
        return written


def _name(place: Place, names: Mapping[nn.Module, str]) -> str:
    return f"{names[place[0]]}.{place[1]}".removeprefix(".")


def widening(
    widths: Mapping[str, Width],
    names: Iterable[str],
    rules: Mapping[str, Rule],
    multiple_of: Mapping[str, int],
) -> Widening | None:
    """How widths grow back to what the model came with, as far as their rules let them; None if none is to.

    Args:
        widths: of the model, by name, all at the sizes that it came with.
        names: of those that are to.
        rules: by name.
        multiple_of: what sizes are multiples of, by name.
    """
    largest = {}
    for name in names:
        several, most = multiple_of[name], rules[name].max_units or 1
        largest[name] = min(widths[name].size, most) // several * several
    return Widening(widths, largest) if largest else None
