"""Options that may differ from width to width: given once, or by patterns of the widths' names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from diffstruct.errors import ConfigurationError

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
        if not _matches(pattern, names):
            raise ConfigurationError(f"{what} has a value for {pattern!r}, but the widths are {names}")
    return {
        name: next((value for pattern, value in option.items() if matches(name, pattern)), default)
        for name in names
    }


def chosen(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a width of this name is to be learned."""
    return any(matches(name, each) for each in include) and not any(matches(name, each) for each in exclude)


def check_patterns(patterns: Sequence[str], names: Sequence[str], what: str) -> None:
    """Refuse a pattern that matches no width's name, but not `*`, which means all that there are.

    Args:
        patterns: of names.
        names: of the widths.
        what: the option's name, for the error.

    Raises:
        ConfigurationError: lists the names.
    """
    if isinstance(patterns, str):
        raise ConfigurationError(f"{what} must be a list of patterns, got {patterns!r}: write [{patterns!r}]")
    for pattern in patterns:
        if pattern != "*" and not _matches(pattern, names):
            raise ConfigurationError(f"{what} has {pattern!r}, but the widths are {[*names]}")


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern matches a name, or is it: widths that were tied are called by patterns."""
    return name == pattern or fnmatchcase(name, pattern)


def _matches(pattern: str, names: Iterable[str]) -> bool:
    return any(matches(name, pattern) for name in names)
