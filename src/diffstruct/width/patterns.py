"""Options that may differ from width to width: given once, or by patterns of the widths' names.

And whether they go together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from diffstruct.criteria.l1 import L1Price, UnitPrice
from diffstruct.errors import ConfigurationError
from diffstruct.rule.rule import Rule

T = TypeVar("T")


def by_name(option: T | Mapping[str, T], names: Iterable[str], default: T, what: str) -> dict[str, T]:
    """The value of an option for each width: the first pattern that matches its name decides.

    Args:
        option: one value for all, or values by pattern, such as `{"*.heads": 8, "*": 16}`.
        names: of the widths.
        default: for a width that no pattern matches.
        what: the option's name, for errors.

    Raises:
        ConfigurationError: a pattern matches no width at all.
    """
    names = [*names]
    if not isinstance(option, Mapping):
        return dict.fromkeys(names, option)
    for pattern in option:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigurationError(f"{what} has a value for {pattern!r}, but the widths are {names}")
    return {
        name: next((value for pattern, value in option.items() if fnmatchcase(name, pattern)), default)
        for name in names
    }


def chosen(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a width of this name is to be learned."""
    return any(fnmatchcase(name, each) for each in include) and not any(
        fnmatchcase(name, each) for each in exclude
    )


def check_price(price: UnitPrice | L1Price, rule: Rule, updates: int, name: str) -> None:
    """Refuse a price that leaves a rule nothing to do.

    Args:
        price: of a unit.
        rule: of a width.
        updates: of the whole run.
        name: of the width.

    Raises:
        ConfigurationError: no unit could come, or none could go.
    """
    if isinstance(price, UnitPrice):
        grace_period = (
            rule.grace_period / updates if isinstance(rule.grace_period, int) else rule.grace_period
        )
        if (rule.p_add or rule.p_spontaneous) and grace_period + price.ease >= 1:
            raise ConfigurationError(
                f"the grace_period, {grace_period:.0%} of {updates} updates for width {name!r}, and the easing of "
                f"the price, {price.ease:.0%}, leave no time in which units could come: "
                "shorten one of them, or let none come (p_add=0, p_spontaneous=0)"
            )
    elif price.floor is not None and price.floor >= rule.threshold:
        raise ConfigurationError(
            f"threshold must be above the floor of the price, {price.floor}, below which no "
            f"salience falls, got {rule.threshold} for width {name!r}"
        )
