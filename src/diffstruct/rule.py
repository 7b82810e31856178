"""The rule: saliences in, decision out. Pure; it changes no tensor and keeps no state of its own.

Miconi, "Neural networks with differentiable structure" (arXiv:1606.06216), section on the algorithm:
keep a reserve of `k` units whose salience is at most the threshold; delete each unit in excess with a
small probability, add one with a small probability where the reserve falls short.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import NoneType

import torch
from torch import Tensor

from diffstruct.errors import ConfigurationError, DivergenceError


@dataclass(frozen=True)
class RuleState:
    """What the rule remembers of each unit.

    Args:
        ages: `[n]` int64, decisions that the unit has lived through.
        risen: `[n]` bool, whether its salience ever was above the threshold.
    """

    ages: Tensor
    risen: Tensor

    @staticmethod
    def newborn(size: int) -> RuleState:
        """The state of `size` units that have just come."""
        return RuleState(torch.zeros(size, dtype=torch.int64), torch.zeros(size, dtype=torch.bool))


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
        reserve: `k`, a count (int), or a fraction of the width (float below 1), then at least one unit.
        p_add: probability per decision that a reserve that falls short is filled.
        p_delete: probability per decision that a unit in excess is deleted.
        p_spontaneous: probability per decision of one more unit, whatever the reserve.
        min_units: never fewer units than this.
        max_units: never more units than this.
        redraw_after: the age in decisions after which a reserve unit that never rose above the threshold
            is replaced by a new one; None (as in the paper) for never. A reserve unit can be dead and
            would then stop growth for ever.

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

    def __post_init__(self) -> None:
        def need(holds: bool, name: str, what: str) -> None:
            if not holds:
                raise ConfigurationError(f"{name} must be {what}, got {getattr(self, name)!r}")

        need(self.threshold > 0 and math.isfinite(self.threshold), "threshold", "a number above 0")
        for name in ("p_add", "p_delete", "p_spontaneous"):
            need(0 <= getattr(self, name) <= 1, name, "a probability between 0 and 1")
        for name in ("min_units", "max_units", "redraw_after"):
            need(isinstance(getattr(self, name), (int, NoneType)), name, "a whole number")
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
        need(
            self.redraw_after is None or self.redraw_after >= 1,
            "redraw_after",
            "None or at least 1",
        )

    def reserve_of(self, size: int) -> int:
        """Sub-threshold units that a width of `size` units should hold."""
        if isinstance(self.reserve, int):
            return self.reserve
        return max(1, int(self.reserve * size))

    def decide(self, saliences: Tensor, state: RuleState, generator: torch.Generator) -> Decision:
        """Decide which units stay and how many come.

        Args:
            saliences: `[n]`, one number per unit.
            state: the memory that the last decision left behind.
            generator: the only source of chance (on the CPU).

        Returns:
            The decision, with the memory to hand in next time.

        Raises:
            DivergenceError: a salience is not a finite number.
        """
        saliences = saliences.detach().cpu()
        size = len(saliences)
        assert state.ages.shape == state.risen.shape == (size,)
        above = saliences > self.threshold
        if not saliences.isfinite().all():
            raise DivergenceError(
                "a unit's salience is not finite: the weights have diverged; "
                "lower the learning rate or clip the gradients"
            )
        ages, risen = state.ages + 1, state.risen | above
        reserve, sub = self.reserve_of(size), size - int(above.sum())

        gone = torch.zeros(size, dtype=torch.bool)
        if sub > reserve:
            gone = self._excess(~above, sub - reserve, generator)
        redrawn = 0
        if self.redraw_after is not None:
            stale = ~above & ~risen & (ages > self.redraw_after) & ~gone
            redrawn = int(stale.sum())
            gone |= stale
        # Both draws are always made, so that chance does not depend on what it decides.
        fill, spontaneous = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        add = max(0, reserve - sub) if fill < self.p_add else 0
        if add == 0 and spontaneous < self.p_spontaneous:
            add = 1

        stays = ~gone
        keep = tuple(stays.nonzero().flatten().tolist())
        add = redrawn + max(0, min(add, self.max_units - len(keep) - redrawn))
        if add or len(keep) < size:
            born = RuleState.newborn(add)
            ages = torch.cat([ages[stays], born.ages])
            risen = torch.cat([risen[stays], born.risen])
        return Decision(size, keep, add, RuleState(ages, risen))

    def _excess(self, sub: Tensor, excess: int, generator: torch.Generator) -> Tensor:
        """Choose `[n]` which units go: each of a random `excess` of the sub-threshold ones at `p_delete`."""
        candidates = sub.nonzero().flatten()
        shuffled = candidates[torch.randperm(len(candidates), generator=generator)][:excess]
        chance = torch.rand(excess, generator=generator, dtype=torch.float64)
        # The width may not fall below its minimum, however chance falls.
        goes = shuffled[chance < self.p_delete][: max(0, len(sub) - self.min_units)]
        return torch.zeros_like(sub).index_fill(0, goes, True)
