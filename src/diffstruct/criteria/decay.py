"""The decay of outgoing weights, as strong with every optimizer: in units of how far training moves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffstruct.distributed import Processes, sample, sample_place, scale_
from diffstruct.states import Fields
from diffstruct.width import Slot, Width

ENOUGH = 4096
"""Weights of a tensor, evenly spread, that its movement is measured on."""


class Decay:
    """Lets the outgoing weights of units that are not worth their price fade.

    A useless unit's weights decay, from one decision to the next, by as much of themselves as training has
    moved all weights of the tensor in that time, on average, relative to their size: measured, so that it is
    as strong with SGD as with Adam, at any learning rate, and ends when a schedule lets the rate end. It is
    the way from where they were that counts, not the sum of all steps, most of which a noisy optimizer takes
    back.

    Args:
        rate: of the moving average of the movement.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._before: list[Tensor] = []
        self._movement: list[float] = []  # of each tensor between two decisions, relative to its size
        self._seen = 0

    @property
    def remembered(self) -> Sequence[Tensor]:
        """Weights as the last decision has left them."""
        return self._before

    def remember(self, tensors: Sequence[Tensor]) -> None:
        """Remember the weights as a decision leaves them."""
        self._before = [_some(tensor).clone() for tensor in tensors]

    def follow(self, before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
        """Blocks have come or gone: of tensors that stay the movement is known; others move as these do.

        Args:
            before: the tensors that were measured.
            after: those that will be.
        """
        known = {id(tensor): moved for tensor, moved in zip(before, self._movement, strict=False)}
        if known:
            usual = sum(known.values()) / len(known)
            self._movement = [known.get(id(tensor), usual) for tensor in after]
        self.remember(after)

    def state_dict(self, tensors: Mapping[str, Tensor], processes: Processes) -> dict[str, Any]:
        """What is remembered of the tensors, in their order, by names; of all rows of those that are sharded.

        Args:
            tensors: by names.
            processes: that have rows of them, each of which has to ask at the same time.
        """
        before = [was.clone() for was in self._before]
        if processes.sharding is not None:
            before = _gathered(before, [*tensors.values()], processes)
        moved: Sequence[float | None] = self._movement or [None] * len(tensors)
        known = zip(tensors, before, moved, strict=True)
        every = {name: {"before": was, "movement": movement} for name, was, movement in known}
        return {"seen": self._seen, "tensors": every}

    def load_state_dict(self, state: Fields, tensors: Mapping[str, Tensor]) -> None:
        """Go on from there with these tensors, by names; of one that is sharded, with the rows here."""
        every, seen = state.fields("tensors"), state.whole("seen")
        known = {name: every.fields(name) for name in tensors}
        before = []
        for name, tensor in tensors.items():
            here = _some(tensor)
            begin, length = sample_place(tensor, _step(tensor))
            values = known[name].tensor("before", (length,))
            before.append(values[begin : begin + len(here)].to(here, copy=True))
        movement = [each.number("movement") for each in known.values() if each["movement"] is not None]
        if len(movement) not in (0, len(tensors)):
            raise every.wrong("", "lacks the movement of some tensors")
        self._before, self._movement, self._seen = before, movement, seen

    def measure(self, tensors: Sequence[Tensor], processes: Processes | None = None) -> None:
        """Measure how far training has moved the same tensors until the next decision.

        Args:
            tensors: of each, all of it or the rows that this process has.
            processes: that have the others.
        """
        self._seen += 1
        rate = max(self.rate, 1 / self._seen)
        each = zip(self._before, tensors, strict=True)
        pairs = [
            (before.norm(1).item(), torch.dist(_some(tensor), before, 1).item()) for before, tensor in each
        ]
        if processes is not None and processes.sharding is not None:
            pairs = [(size, moved) for size, moved in processes.sum(np.array(pairs)).tolist()]
        now = [moved / size if size else 0.0 for size, moved in pairs]
        known = self._movement or now
        self._movement = [old + rate * (new - old) for old, new in zip(known, now, strict=True)]

    @torch.no_grad()
    def apply(
        self,
        readers: Sequence[tuple[Tensor, Sequence[tuple[Slot, Width]]]],
        importances: Mapping[str, NDArray[np.float64]],
        ages: Mapping[str, NDArray[np.int64]],
        prices: Mapping[str, float],
        grace_periods: Mapping[str, int],
        strength: float,
        power: float,
        rise: int,
    ) -> None:
        """Let the weights decay; see `decay_factors`.

        Args:
            readers: the outgoing weights, each with its slots.
            importances: of the units of each width, `[n]`.
            ages: of the units of each width, in decisions.
            prices: of a unit, in the unit of its importance.
            grace_periods: in decisions.
            strength: in units of how far training moves the weights from one decision to the next.
            power: as there.
            rise: as there.
        """
        for (tensor, slots), movement in zip(readers, self._movement, strict=False):
            moved = strength * movement
            if moved <= 0:
                continue
            for slot, width in slots:
                name = width.name
                factors = decay_factors(
                    importances[name], ages[name], prices[name], moved, power, grace_periods[name], rise
                )
                if (factors < 1).any():
                    scale_(tensor, slot.by_entry(torch.from_numpy(factors), width.axis))


def annealing(step: int, total_steps: int, fraction: float) -> float:
    """The part of the decay that applies at a step: 1, and over the last `fraction` of the run down to 0."""
    return min(1.0, max(0.0, (total_steps - step) / (fraction * total_steps)))


def decay_factors(
    importances: Any, ages: Any, price: float, strength: float, power: float, grace_period: int, rise: int
) -> Any:
    """The factors that the outgoing weights of each unit shrink by in one decision, `[n]`, from 0 to 1.

    `1 - strength * ramp * (price / (importance + price)) ** power`: units of no importance decay at full
    strength, important ones hardly. The ramp goes from 0 at the end of the unit's grace period to 1 when it
    is `rise` older.

    Args:
        importances: `[n]`, in the unit of the price.
        ages: `[n]`, in decisions.
        price: what a unit must be worth.
        strength: the share of a useless unit's weights that goes.
        power: above 1, units whose importance is above the price decay less than in proportion.
        grace_period: in decisions.
        rise: in decisions.
    """
    ramp = np.minimum(np.maximum((ages - grace_period) / rise, 0.0), 1.0)
    return np.maximum(1.0 - strength * ramp * (price / (importances + price)) ** power, 0.0)


def _some(tensor: Tensor) -> Tensor:
    """Some of the entries of a tensor, evenly spread; of one that is sharded, those that are here."""
    return sample(tensor, _step(tensor))


def _step(tensor: Tensor) -> int:
    return max(1, tensor.numel() // ENOUGH)


def _gathered(parts: Sequence[Tensor], tensors: Sequence[Tensor], processes: Processes) -> list[Tensor]:
    """Some of the entries of each tensor, put together from those that each process has."""
    places = [sample_place(tensor, _step(tensor)) for tensor in tensors]
    every = [np.zeros(length) for _, length in places]
    for part, values, (begin, _) in zip(parts, every, places, strict=True):
        values[begin : begin + len(part)] = part.double().cpu().numpy()
    total = processes.sum(np.concatenate([np.zeros(0), *every]))
    ends = np.cumsum([length for _, length in places])
    found = np.split(total, ends[:-1]) if len(ends) else []
    return [torch.from_numpy(values).to(part, copy=True) for values, part in zip(found, parts, strict=True)]
