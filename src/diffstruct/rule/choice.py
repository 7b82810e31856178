"""The rule itself, on arrays and plain numbers.

Miconi, "Neural networks with differentiable structure" (arXiv:1606.06216), section on the algorithm:
keep a reserve of `k` units whose importance is at most the threshold; delete each unit in excess with a
small probability, add one with a small probability where the reserve falls short.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class RuleNumbers(NamedTuple):
    """A complete rule as plain numbers, for a width of a given size: what `choose` needs."""

    threshold: float
    reserve: int
    p_add: float
    p_delete: float
    p_spontaneous: float
    min_units: int
    max_units: int
    redraw_after: int  # 0 for never
    grace_period: int


def choose(importances: Any, ages: Any, risen: Any, generator: Any, rule: Any) -> Any:
    """Which units are removed, and how many are added.

    There is no other copy: `Rule.decide` calls it as it stands, and compiled training loops compile it. So
    it keeps to what Numba knows, and draws from a NumPy generator, which gives both the same numbers.

    Args:
        importances: `[n]`.
        ages: `[n]`, brought up to date in place, like `risen` `[n]`.
        generator: of NumPy, the only source of chance.
        rule: `RuleNumbers`.

    Returns:
        Which units are removed, `[n]` bool, and how many are added.
    """
    size = len(importances)
    above = importances > rule.threshold
    ages += 1
    risen |= above
    sub = size - int(np.count_nonzero(above))
    removed = np.zeros(size, np.bool_)
    left = size
    # With a grace period, every sub-threshold unit past it is a candidate; without, those that the reserve
    # has no room for.
    if rule.grace_period > 0:
        units = np.flatnonzero(~above & (ages > rule.grace_period))
        excess = len(units)
    else:
        units = np.flatnonzero(~above)
        excess = sub - rule.reserve
    if excess > 0:
        # A random choice of those in excess (Fisher and Yates): the units that are never reached are spared.
        for i in range(excess):
            j = i + int(generator.random() * (len(units) - i))
            unit = units[j]
            units[j] = units[i]
            # The width may not fall below its minimum, however chance falls.
            if generator.random() < rule.p_delete and left > rule.min_units:
                removed[unit] = True
                left -= 1
    if rule.grace_period > 0:  # the units that are removed make room for new ones at once
        sub -= size - left
    redrawn = 0
    if rule.redraw_after > 0:
        for unit in range(size):
            if not (removed[unit] or risen[unit]) and ages[unit] > max(rule.redraw_after, rule.grace_period):
                removed[unit] = True
                redrawn += 1
    # Both draws are always made, so that chance does not depend on what it decides.
    fill, spontaneous = generator.random(), generator.random()
    add = max(0, rule.reserve - sub) if fill < rule.p_add else 0
    if add == 0 and spontaneous < rule.p_spontaneous:
        add = 1
    # Here, `left` still counts the units that are redrawn.
    return removed, redrawn + max(0, min(add, rule.max_units - left))
