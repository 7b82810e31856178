"""The rule's parameters, and a decision by them. Pure; it changes no tensor and keeps no state of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffstruct.errors import ConfigurationError, DivergenceError
from diffstruct.rule.choice import RuleNumbers, choose
from diffstruct.rule.decision import Decision, RuleState, decision


@dataclass(frozen=True)
class Rule:
    """The paper's rule, and the extensions that larger networks need.

    A unit is *sub-threshold* when its importance is not above `threshold`. With more than `reserve` of them,
    `reserve` are spared at random and each of the others is deleted with probability `p_delete`. With
    fewer, the missing ones are added with probability `p_add`. Besides, one unit is added with
    probability `p_spontaneous` whatever the reserve.

    What is left open (None) is filled by the criterion (`Criterion.default_rule`), so that
    `Rule(max_units=64)` changes nothing but the largest size.

    Args:
        threshold: `T_D`, in the unit of the criterion's importance; for `TaylorImportance` the
            price.
        reserve: `k`, a count (int), or a fraction of the width (float below 1), then at least `min_reserve`.
        p_add: probability per step, however many steps lie between decisions, that a reserve that falls
            short is filled.
        p_delete: probability per step that a unit in excess is deleted.
        p_spontaneous: probability per step of one more unit, whatever the reserve.
        min_units: never fewer units than this.
        max_units: never more units than this.
        redraw_after: the age in steps after which a reserve unit that never rose above the threshold
            is replaced by a new one; 0 (as in the paper) for never. A reserve unit can be dead (a ReLU that
            is never active) and would then stop growth.
        min_reserve: a reserve that is a fraction of the width has at least so many units.
        grace_period: the age in steps up to which no unit is deleted; past it, each that is sub-threshold
            may be, and the reserve is made of new units alone. A fraction (float below 1) is one of
            `Structure`'s `total_steps`. 0 (as in the paper) for none.

    Raises:
        ConfigurationError: a parameter that cannot work.

    Example:
        >>> import diffstruct as ds
        >>> rule = ds.Rule(max_units=64)
        >>> rule.filled(ds.TaylorImportance().default_rule).threshold
        0.3
    """

    threshold: float | None = None
    reserve: int | float | None = None
    p_add: float | None = None
    p_delete: float | None = None
    p_spontaneous: float | None = None
    min_units: int | None = None
    max_units: int | None = None
    redraw_after: int | None = None
    min_reserve: int | None = None
    grace_period: int | float | None = None

    def __post_init__(self) -> None:
        for name, (holds, what) in _VALID.items():
            value = getattr(self, name)
            if value is not None and not holds(value):
                raise ConfigurationError(f"{name} must be {what}, got {value!r}")
        if self.max_units is not None:
            if self.max_units < (self.min_units or 1):
                raise ConfigurationError(
                    f"max_units must be at least min_units ({self.min_units or 1}), got {self.max_units}"
                )
            if isinstance(self.reserve, int) and self.reserve >= self.max_units:
                raise ConfigurationError(
                    f"reserve must be below max_units ({self.max_units}), got {self.reserve}"
                )

    def filled(self, defaults: Rule) -> Rule:
        """This rule, with what it leaves open taken from `defaults`."""
        return replace(defaults, **{name: value for name, value in vars(self).items() if value is not None})

    def timed(self, total_steps: int, interval: int = 1) -> Rule:
        """The rule for a run of `total_steps` that is asked every `interval` steps, and acts as strongly.

        The grace period, and `redraw_after`, are counted in decisions afterwards.
        """
        grace = _known(self.grace_period, "grace_period")
        steps = grace if isinstance(grace, int) else math.ceil(grace * total_steps)
        if interval == 1:
            return replace(self, grace_period=steps)

        def within(p: float | None) -> float | None:
            return None if p is None else 1 - (1 - p) ** interval

        return replace(
            self,
            p_add=within(self.p_add),
            p_delete=within(self.p_delete),
            p_spontaneous=within(self.p_spontaneous),
            redraw_after=max(1, round(self.redraw_after / interval)) if self.redraw_after else 0,
            grace_period=math.ceil(steps / interval),
        )

    @lru_cache(maxsize=1024)  # noqa: B019 - a rule is small
    def numbers(self, size: int, dtype: torch.dtype) -> RuleNumbers:
        """The parameters as plain numbers, for `size` importances of type `dtype`.

        Raises:
            ConfigurationError: something is left open, or the grace period is a fraction of a run that the
                rule has not been told of.
        """
        missing = [each.name for each in fields(self) if getattr(self, each.name) is None]
        if missing:
            raise ConfigurationError(
                f"this rule leaves {', '.join(missing)} open: give them, or fill them in from a criterion "
                "with rule.filled(criterion.default_rule)"
            )
        grace = _known(self.grace_period, "grace_period")
        if not isinstance(grace, int):
            raise ConfigurationError(
                f"a grace_period of {grace} is a fraction of a run of unknown length: give a count of steps, "
                "or say how long the run is with rule.timed(total_steps)"
            )
        reserve = _known(self.reserve, "reserve")
        if not isinstance(reserve, int):
            reserve = max(_known(self.min_reserve, "min_reserve"), int(reserve * size))
        return RuleNumbers(
            # Rounded as the importance of a new unit is, which begins at the threshold and not above it.
            threshold=torch.tensor(self.threshold, dtype=dtype).item(),
            reserve=reserve,
            p_add=float(_known(self.p_add, "p_add")),
            p_delete=float(_known(self.p_delete, "p_delete")),
            p_spontaneous=float(_known(self.p_spontaneous, "p_spontaneous")),
            min_units=_known(self.min_units, "min_units"),
            max_units=_known(self.max_units, "max_units"),
            redraw_after=_known(self.redraw_after, "redraw_after"),
            grace_period=grace,
        )

    def decide(self, importances: Tensor, state: RuleState, generator: np.random.Generator) -> Decision:
        """Decide which units stay and how many are added.

        Args:
            importances: `[n]`, one number per unit.
            state: the memory that the last decision left behind.
            generator: the only source of chance.

        Returns:
            The decision, with the memory to hand in next time.

        Raises:
            DivergenceError: an importance is not a finite number.
            ConfigurationError: the rule is not complete, see `numbers`.
        """
        values = importances.detach().double().cpu().numpy()
        assert state.ages.shape == state.risen.shape == values.shape
        check_finite(values)
        memory = RuleState(state.ages.copy(), state.risen.copy())
        numbers = self.numbers(len(values), importances.dtype)
        removed, add = choose(values, memory.ages, memory.risen, generator, numbers)
        return decision(removed, add, memory)


def check_finite(importances: NDArray[np.float64]) -> None:
    """Refuse importances that are not numbers.

    Raises:
        DivergenceError: one is infinite or NaN.
    """
    if not np.isfinite(importances).all():
        raise DivergenceError(
            "a unit's importance is not finite: the weights have diverged; "
            "lower the learning rate or clip the gradients"
        )


def _known(value: Any, name: str) -> Any:
    if value is None:
        raise ConfigurationError(f"this rule leaves {name} open: give it, or fill it in from a criterion")
    return value


def _is_count(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_probability(value: float) -> bool:
    return 0 <= value <= 1


def _is_count_or_fraction(value: float) -> bool:
    return _is_count(0)(value) if isinstance(value, int) else 0 < value < 1


_PROBABILITY = _is_probability, "a probability between 0 and 1"
_VALID: dict[str, tuple[Callable[[Any], bool], str]] = {
    "threshold": (lambda value: value > 0 and math.isfinite(value), "a number above 0"),
    "p_add": _PROBABILITY,
    "p_delete": _PROBABILITY,
    "p_spontaneous": _PROBABILITY,
    "min_units": (_is_count(1), "a whole number of at least 1"),
    "max_units": (_is_count(1), "a whole number of at least 1"),
    "reserve": (_is_count_or_fraction, "a count, or a fraction between 0 and 1"),
    "min_reserve": (_is_count(0), "a count of at least 0"),
    "grace_period": (_is_count_or_fraction, "a count, or a fraction between 0 and 1"),
    "redraw_after": (_is_count(0), "a count of at least 0"),
}
