"""Where widths start from: the first cut, checked before anything is cut."""

from __future__ import annotations

from collections.abc import Mapping

from diffstruct.couple import Proof, Refusal
from diffstruct.couple.proof import Unproved
from diffstruct.errors import ConfigurationError, StructureError
from diffstruct.rule.multiples import multiple
from diffstruct.rule.rule import Rule
from diffstruct.surgery import Change
from diffstruct.width.width import Width


def first_changes(
    widths: Mapping[str, Width],
    start: Mapping[str, int | None],
    rules: Mapping[str, Rule],
    granularity: Mapping[str, int],
) -> dict[str, Change]:
    """What cuts each width down to where it starts from; all arguments are by the widths' names.

    Raises:
        ConfigurationError: a width cannot start from there.
    """
    changes = {}
    for name, width in widths.items():
        size = _first_size(width, start[name], rules[name], granularity[name])
        if size < width.size:
            changes[name] = Change(width, tuple(range(size)), 0)
    return changes


def _first_size(width: Width, start: int | None, rule: Rule, grain: int) -> int:
    if start is not None and not 1 <= start <= width.size:
        raise ConfigurationError(
            f"start must be between 1 and the {width.size} units that width {width.name!r} came with, "
            f"got {start}"
        )
    size = width.size if start is None else multiple(start, max(1, grain))
    if grain < 1 or size % grain or size > width.size or rule.max_units % grain:
        raise ConfigurationError(
            f"width {width.name!r} came with {width.size} units, starts from {size} and may have "
            f"{rule.max_units}: all of them must be multiples of the granularity, {grain}"
        )
    if not rule.min_units <= size <= rule.max_units:
        raise ConfigurationError(
            f"width {width.name!r} starts with {size} units, outside the rule's {rule.min_units} "
            f"to {rule.max_units}: change start, min_units or max_units"
        )
    return size


def cannot_start(changes: Mapping[str, Change], proof: Proof) -> dict[str, Refusal]:
    """The widths at whose first size the model does not run (because of a bare `squeeze`, say).

    Raises:
        StructureError: the others do not run together.
    """
    try:
        proof.runs(changes.values())
        return {}
    except Unproved:
        refused = {name: why for name, change in changes.items() if (why := _refusal(change, proof))}
    try:
        proof.runs([change for name, change in changes.items() if name not in refused])
    except Unproved as error:
        raise StructureError(f"from where the widths start, {error}: give another start") from error
    return refused


def _refusal(change: Change, proof: Proof) -> Refusal | None:
    try:
        proof.runs([change])
    except Unproved as error:
        places = tuple(map(str, change.width.slots))
        return Refusal(places, change.size, f"starting from {change.new_size} units, {error}")
    return None
