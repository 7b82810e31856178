"""The rule: saliences in, decision out. Pure; it changes no tensor and keeps no state of its own.

Miconi, "Neural networks with differentiable structure" (arXiv:1606.06216), section on the algorithm:
keep a reserve of `k` units whose salience is at most the threshold; delete each unit in excess with a
small probability, add one with a small probability where the reserve falls short.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffstruct.errors import ConfigurationError, DivergenceError


@dataclass(frozen=True)
class RuleState:
    """What the rule remembers of each unit.

    Args:
        ages: `[n]` int64, decisions that the unit has lived through.
        risen: `[n]` bool, whether its salience ever was above the threshold.
    """

    ages: NDArray[np.int64]
    risen: NDArray[np.bool_]

    @staticmethod
    def newborn(size: int) -> RuleState:
        """The state of `size` units that have just come."""
        return RuleState(np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.bool_))


@dataclass(frozen=True)
class Decision:
    """What happens to the units of one width.

    Args:
        size: units before.
        keep: indices of the units that stay, ascending.
        add: number of units that come, placed after those that stay.
        state: the rule's memory of the units after the change.
    """

    size: int
    keep: tuple[int, ...]
    add: int
    state: RuleState

    @property
    def changes(self) -> bool:
        """Whether anything changes at all."""
        return self.add > 0 or len(self.keep) < self.size

    @property
    def new_size(self) -> int:
        """Units after."""
        return len(self.keep) + self.add


@dataclass(frozen=True)
class Rule:
    """The paper's rule, and the two extensions that larger networks need.

    A unit is *sub-threshold* when its salience is not above `threshold`. With more than `reserve` of them,
    `reserve` are spared at random and each of the others is deleted with probability `p_delete`. With
    fewer, the missing ones are added with probability `p_add`. Besides, one unit is added with
    probability `p_spontaneous` whatever the reserve.

    Args:
        threshold: `T_D`, in the unit of the salience.
        reserve: `k`, a count (int), or a fraction of the width (float below 1), then at least `min_reserve`.
        p_add: probability per decision that a reserve that falls short is filled.
        p_delete: probability per decision that a unit in excess is deleted.
        p_spontaneous: probability per decision of one more unit, whatever the reserve.
        min_units: never fewer units than this.
        max_units: never more units than this.
        redraw_after: the age in decisions after which a reserve unit that never rose above the threshold
            is replaced by a new one; None (as in the paper) for never. A reserve unit can be dead and
            would then stop growth for ever.
        min_reserve: a reserve that is a fraction of the width has at least so many units.
        grace_period: the age in decisions up to which no unit is deleted; past it, each that is sub-threshold may
            be, and the reserve is made of newborns alone. A fraction (float below 1) is one of the run that
            `Structure` is told of. 0 (as in the paper) for no trial.

    Raises:
        ConfigurationError: a parameter that cannot work.
    """

    threshold: float = 0.05
    reserve: int | float = 1
    p_add: float = 0.05
    p_delete: float = 0.25
    p_spontaneous: float = 1e-4
    min_units: int = 1
    max_units: int = 99
    redraw_after: int | None = None
    min_reserve: int = 1
    grace_period: int | float = 0

    def __post_init__(self) -> None:
        def need(holds: bool, name: str, what: str) -> None:
            if not holds:
                raise ConfigurationError(f"{name} must be {what}, got {getattr(self, name)!r}")

        need(self.threshold > 0 and math.isfinite(self.threshold), "threshold", "a number above 0")
        for name in ("p_add", "p_delete", "p_spontaneous"):
            need(0 <= getattr(self, name) <= 1, name, "a probability between 0 and 1")
        for name in ("min_units", "max_units"):
            need(isinstance(getattr(self, name), int), name, "a whole number")
        need(self.min_units >= 1, "min_units", "at least 1")
        need(self.max_units >= self.min_units, "max_units", f"at least min_units ({self.min_units})")
        if isinstance(self.reserve, int):
            need(
                0 <= self.reserve < self.max_units,
                "reserve",
                f"at least 0 and below max_units ({self.max_units})",
            )
        else:
            need(0 < self.reserve < 1, "reserve", "a count, or a fraction between 0 and 1")
        least = self.min_reserve
        need(isinstance(least, int) and least >= 0, "min_reserve", "a count of at least 0")
        whole = isinstance(self.grace_period, int)
        need(
            self.grace_period >= 0 if whole else 0 < self.grace_period < 1,
            "grace_period",
            "a count, or a fraction below 1",
        )
        after = self.redraw_after
        need(after is None or (isinstance(after, int) and after >= 1), "redraw_after", "None or at least 1")

    def reserve_of(self, size: int) -> int:
        """Sub-threshold units that a width of `size` units should hold."""
        if isinstance(self.reserve, int):
            return self.reserve
        return max(self.min_reserve, int(self.reserve * size))

    def decide(self, saliences: Tensor, state: RuleState, generator: np.random.Generator) -> Decision:
        """Decide which units stay and how many come.

        Args:
            saliences: `[n]`, one number per unit.
            state: the memory that the last decision left behind.
            generator: the only source of chance.

        Returns:
            The decision, with the memory to hand in next time.

        Raises:
            DivergenceError: a salience is not a finite number.
        """
        values = saliences.detach().double().cpu().numpy()
        assert state.ages.shape == state.risen.shape == values.shape
        if not np.isfinite(values).all():
            raise DivergenceError(
                "a unit's salience is not finite: the weights have diverged; "
                "lower the learning rate or clip the gradients"
            )
        memory = RuleState(state.ages.copy(), state.risen.copy())
        numbers = self.numbers(len(values), saliences.dtype)
        gone, add = choose(values, memory.ages, memory.risen, generator, *numbers)
        return self.decision(gone, add, memory)

    def numbers(
        self, size: int, dtype: torch.dtype
    ) -> tuple[float, int, float, float, float, int, int, int, int]:
        """The parameters as plain numbers, in the order of `choose`, for `size` saliences of type `dtype`."""
        return (
            # Rounded as the salience of a new unit is, which begins at the threshold and not above it.
            torch.tensor(self.threshold, dtype=dtype).item(),
            self.reserve_of(size),
            self.p_add,
            self.p_delete,
            self.p_spontaneous,
            self.min_units,
            self.max_units,
            self.redraw_after or 0,
            int(self.grace_period),  # a fraction has become a count by now: see `timed`
        )

    def timed(self, updates: int, every: int = 1) -> Rule:
        """The rule for a run of so many updates that asks it at every so many: units come and go as often."""
        grace_period = (
            self.grace_period
            if isinstance(self.grace_period, int)
            else math.ceil(self.grace_period * updates)
        )
        if every == 1:
            return replace(self, grace_period=grace_period)
        after = self.redraw_after
        return replace(
            self,
            p_add=1 - (1 - self.p_add) ** every,
            p_delete=1 - (1 - self.p_delete) ** every,
            p_spontaneous=1 - (1 - self.p_spontaneous) ** every,
            redraw_after=None if after is None else max(1, round(after / every)),
            grace_period=math.ceil(grace_period / every),
        )

    def decision(self, gone: NDArray[np.bool_], add: int, memory: RuleState) -> Decision:
        """What `choose` returned, as a decision; `memory` is that of the units before it."""
        size, stays = len(gone), ~gone
        if add or gone.any():
            born = RuleState.newborn(add)
            memory = RuleState(
                np.concatenate([memory.ages[stays], born.ages]),
                np.concatenate([memory.risen[stays], born.risen]),
            )
        return Decision(size, tuple(np.flatnonzero(stays).tolist()), add, memory)


def choose(
    saliences: Any,
    ages: Any,
    risen: Any,
    generator: Any,
    threshold: float,
    reserve: int,
    p_add: float,
    p_delete: float,
    p_spontaneous: float,
    min_units: int,
    max_units: int,
    redraw_after: int,
    grace_period: int,
) -> Any:
    """The rule itself, on arrays and plain numbers.

    There is no other copy: `Rule.decide` calls it as it stands, and the fused training loop compiles it. So
    it keeps to what Numba knows, and draws from a NumPy generator, which gives both the same numbers.

    Args:
        saliences: `[n]`.
        ages: `[n]`, brought up to date in place, like `risen` `[n]`.
        generator: of NumPy, the only source of chance.
        threshold: like the others as in `Rule`, but `reserve` is a count, and `redraw_after` 0 for never.

    Returns:
        Which units go, `[n]` bool, and how many come.
    """
    size = len(saliences)
    above = saliences > threshold
    ages += 1
    risen |= above
    sub = size - int(np.count_nonzero(above))
    gone = np.zeros(size, np.bool_)
    left = size
    # With a grace_period, whoever has had it and is not above goes; without, those whom the reserve has no room for.
    units = np.flatnonzero(~above & (ages > grace_period)) if grace_period > 0 else np.flatnonzero(~above)
    excess = len(units) if grace_period > 0 else sub - reserve
    if excess > 0:
        # A random choice of those in excess (Fisher and Yates): the units that are never reached are spared.
        for i in range(excess):
            j = i + int(generator.random() * (len(units) - i))
            unit = units[j]
            units[j] = units[i]
            # The width may not fall below its minimum, however chance falls.
            if generator.random() < p_delete and left > min_units:
                gone[unit] = True
                left -= 1
    if grace_period > 0:  # those that go make room for newborns at once
        sub -= size - left
    redrawn = 0
    if redraw_after > 0:
        for unit in range(size):
            if not (gone[unit] or risen[unit]) and ages[unit] > max(redraw_after, grace_period):
                gone[unit] = True
                redrawn += 1
    # Both draws are always made, so that chance does not depend on what it decides.
    fill, spontaneous = generator.random(), generator.random()
    add = max(0, reserve - sub) if fill < p_add else 0
    if add == 0 and spontaneous < p_spontaneous:
        add = 1
    # Here, `left` still counts those that are drawn anew.
    return gone, redrawn + max(0, min(add, max_units - left))
