"""New-unit initialisation: what the parameters of new units begin with.

It must disturb the network as little as possible, and yet leave the optimizer something to work with. To
write another one, subclass `Initialization` and give it to a criterion.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffstruct.criteria.new_units import NewUnits
from diffstruct.surgery import Change
from diffstruct.width import READERS, Role, Slot


class Initialization(ABC):
    """What the parameters of new units begin with; subclasses say so for each kind of entry.

    Example:
        Outgoing weights of zero, so that new units leave the model's output as it is:

        >>> import diffstruct as ds
        >>> class Silent(ds.AsTheModel):
        ...     def outgoing(self, new):
        ...         readers = new.width.having(ds.Role.OUTGOING, ds.Role.RECURRENT)
        ...         return {slot: new.filled(slot, 0.0) for slot in readers}
        >>> criterion = ds.TaylorImportance(initialization=Silent())
    """

    @torch.no_grad()
    def __call__(
        self,
        changes: Sequence[Change],
        values: Mapping[Tensor, Tensor],
        thresholds: Mapping[str, float],
        generator: np.random.Generator,
    ) -> None:
        """Write the new units' entries.

        Args:
            changes: of all widths.
            values: the resized tensors by those that they replace, written in place.
            thresholds: of the rule, by the widths' names.
            generator: the only source of chance.
        """
        sizes = {change.width.axis: change.new_size for change in changes}
        growing = [
            NewUnits(change, values, sizes, thresholds[change.width.name], generator)
            for change in changes
            if change.add
        ]
        # Incoming entries come first: where a new unit feeds a new unit, the outgoing weights decide.
        for new in growing:
            for slot in new.width.having(Role.INCOMING):
                entries = self.incoming(new, slot)
                if entries is not None:
                    new.write(slot, entries)
        for new in growing:
            for slot, entries in self.outgoing(new).items():
                new.write(slot, entries)
        for new in growing:
            new.silence({other.width.axis: other.is_new for other in growing})

    @abstractmethod
    def incoming(self, new: NewUnits, slot: Slot) -> Tensor | None:
        """The new units' entries in an incoming slot, shaped `new.shape(slot)`; None for zeros."""

    @abstractmethod
    def outgoing(self, new: NewUnits) -> dict[Slot, Tensor]:
        """The new units' outgoing weights and multipliers, each shaped `new.shape(slot)`, by slot."""


@dataclass(frozen=True)
class SmallRandom(Initialization):
    """Small random weights and zero biases, as in the paper (arXiv:1606.06216, revisions 1 and 2).

    A unit that has a trainable multiplier begins with the multiplier at the threshold.

    Args:
        scale: standard deviation of the weights of which the slot does not say it.

    Example:
        >>> import diffstruct as ds
        >>> criterion = ds.TaylorImportance(initialization=ds.SmallRandom(scale=0.1))
    """

    scale: float = 0.01

    def incoming(self, new: NewUnits, slot: Slot) -> Tensor | None:
        """Normal weights; biases and buffers as their slot's `fill`, else zero."""
        if slot.fill is not None:
            return new.filled(slot, slot.fill)
        if slot.tensor.ndim < 2 or slot.name not in slot.module._parameters:
            return None
        return self.std(slot) * new.normal(slot)

    def outgoing(self, new: NewUnits) -> dict[Slot, Tensor]:
        """Normal weights, and multipliers of which all of a unit's sum to the threshold."""
        return {**self.readers(new), **multipliers(new, new.threshold), **filled(new)}

    def readers(self, new: NewUnits) -> dict[Slot, Tensor]:
        """The new units' outgoing weights, where no `fill` fixes them."""
        return {slot: self.std(slot) * draw for slot, draw in draws(new).items()}

    def std(self, slot: Slot) -> float:
        """The standard deviation of the new units' entries in `slot`."""
        return self.scale if slot.scale is None else slot.scale


@dataclass(frozen=True)
class AtThreshold(SmallRandom):
    """Outgoing weights whose L1 norm is at the threshold (arXiv:1606.06216, revision 3).

    Either half of the norm (see `norms.outgoing`), outside and within the layer, is half the threshold.

    Example:
        >>> import diffstruct as ds
        >>> ds.OutgoingNorm().initialization
        AtThreshold(scale=0.01)
    """

    def outgoing(self, new: NewUnits) -> dict[Slot, Tensor]:
        """Random weights, scaled; multipliers are 1."""
        return {**self.readers(new), **multipliers(new, None), **filled(new)}

    def readers(self, new: NewUnits) -> dict[Slot, Tensor]:
        """Random weights, scaled so that each new unit is at half the threshold outside, and within."""
        drawn = draws(new)
        outputs = sum(new.fan_out(slot) for slot in drawn if slot.role is Role.OUTGOING)
        weight = {slot: 1.0 if slot.role is Role.OUTGOING else outputs / new.fan_out(slot) for slot in drawn}
        result: dict[Slot, Tensor] = {}
        for role in READERS:
            group = [slot for slot in drawn if slot.role is role]
            if not group:
                continue
            norms = [weight[slot] * new.norms(slot, drawn[slot]) for slot in group]
            factor = 0.5 * new.threshold / torch.stack(norms).sum(0)  # [add]
            for slot in group:
                result[slot] = new.scaled(slot, drawn[slot], factor)
        return result


@dataclass(frozen=True)
class AsTheModel(Initialization):
    """Weights and biases as large as the model's own began with, but small outgoing weights.

    A new unit computes something that differs from unit to unit, so that it can turn out to be useful;
    small outgoing weights keep it from disturbing the network.

    Args:
        outgoing_scale: of the outgoing weights, in units of those that the model began with.

    Example:
        >>> import diffstruct as ds
        >>> criterion = ds.TaylorImportance(initialization=ds.AsTheModel(outgoing_scale=0.1))
    """

    outgoing_scale: float = 0.05

    def incoming(self, new: NewUnits, slot: Slot) -> Tensor | None:
        """Normal entries around the slot's `fill`, or 0; buffers and frozen biases are `fill`, or 0."""
        entries = None if slot.fill is None else new.filled(slot, slot.fill)
        parameter = slot.name in slot.module._parameters
        if parameter and (slot.tensor.requires_grad or (entries is None and slot.tensor.ndim > 1)):
            drawn = self.std(slot) * new.normal(slot)
            entries = drawn if entries is None else entries + drawn
        return entries

    def outgoing(self, new: NewUnits) -> dict[Slot, Tensor]:
        """Small normal weights; multipliers are 1."""
        scaled = {slot: self.outgoing_scale * self.std(slot) * draw for slot, draw in draws(new).items()}
        return {**scaled, **multipliers(new, None), **filled(new)}

    def std(self, slot: Slot) -> float:
        """The standard deviation of the model's own entries in `slot` when it was made."""
        return fresh_std(slot) if slot.scale is None else slot.scale


def draws(new: NewUnits) -> dict[Slot, Tensor]:
    """Standard normal numbers for the new units' outgoing weights, where no `fill` fixes them."""
    return {slot: new.normal(slot) for slot in new.width.having(*READERS) if slot.fill is None}


def multipliers(new: NewUnits, total: float | None) -> dict[Slot, Tensor]:
    """The new units' multipliers, such that all of a unit's sum to `total`; each is 1 if that is None."""
    slots = [*new.width.having(Role.MULTIPLIER)]
    count = sum(new.copies(slot) for slot in slots)
    return {slot: new.filled(slot, 1.0 if total is None else total / count) for slot in slots}


def filled(new: NewUnits) -> dict[Slot, Tensor]:
    """The entries of outgoing weights and multipliers whose slot has a `fill`."""
    slots = new.width.having(*READERS, Role.MULTIPLIER)
    return {slot: new.filled(slot, slot.fill) for slot in slots if slot.fill is not None}


def fresh_std(slot: Slot) -> float:
    """The standard deviation of a new module's weights: uniform between plus and minus `fan_in ** -0.5`.

    `fan_in` counts the inputs of one entry of the output; for a bias, those of its module's weights.
    """
    tensor = slot.tensor
    weights = (each for each in slot.module._parameters.values() if each is not None and each.ndim > 1)
    if tensor.ndim == 1:
        tensor = next((each for each in weights if len(each) == len(tensor)), tensor.new_zeros(1, 1))
    return 1 / math.sqrt(3 * tensor.shape[1:].numel())
