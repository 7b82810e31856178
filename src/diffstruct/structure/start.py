"""Where widths start from: the first cut, checked before anything is cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from torch.optim import Optimizer

from diffstruct.couple import FoundWidths, Proof, ProofError
from diffstruct.errors import ConfigurationError, StructureError
from diffstruct.rule import Rule, round_up
from diffstruct.structure.operation import block_watch, operate_on
from diffstruct.surgery import Change
from diffstruct.width import Depth, Width
from diffstruct.width.patterns import by_name


def start_of(
    found: FoundWidths,
    start: Mapping[str, int | None],
    rules: Mapping[str, Rule],
    multiple_of: Mapping[str, int],
) -> dict[str, tuple[int, ...]]:
    """The units that each width starts from, by name, of those that do not start as they are.

    A width at whose first size the model does not run (because of a bare `squeeze`, say) is refused.

    Raises:
        ConfigurationError: a width cannot start from there.
        StructureError: no width is left, or the model does not run at the sizes that they start from.
    """
    changes = {}
    for name, width in found.widths.items():
        if isinstance(width, Depth):
            continue
        size = first_size(width, start[name], rules[name], multiple_of[name])
        if size < width.size:
            changes[name] = Change(width, tuple(range(size)), 0)
    if found.proof is not None and changes:
        for name, reason in _cannot_start(changes, found.proof).items():
            found.refuse(name, reason)
            del changes[name]
    if not found.widths:
        raise StructureError(f"no width can be learned from where it starts:\n{found.explain()}")
    return {name: change.keep for name, change in changes.items()}


def start_depths(
    found: FoundWidths, start: int | Mapping[str, int | None] | None, optimizers: Sequence[Optimizer]
) -> Callable[[], None]:
    """Cut depths down to where they start from: the first blocks stay.

    Returns:
        A function that undoes it.

    Raises:
        ConfigurationError: a depth cannot start from there.
    """
    depths = [width for width in found.widths.values() if isinstance(width, Depth)]
    sizes = by_name(start, found.widths, None, "start")
    widths = dict(found.widths)
    with ExitStack() as undo:
        for depth in depths:
            size = sizes[depth.name]
            if isinstance(start, int):  # meant for widths as well, which may be larger
                size = min(start, depth.size)
            if size is not None and not 1 <= size <= depth.size:
                raise ConfigurationError(
                    f"start must be between 1 and the {depth.size} blocks that depth {depth.name!r} came "
                    f"with, got {size}"
                )
            if size is None or size == depth.size:
                continue
            changes = {depth.name: Change(depth, tuple(range(size)), 0)}
            followed = block_watch(found.model, found.widths, changes, {})
            undo.callback(operate_on(found.model, changes, {}, optimizers))
            found.widths = {name: each.width for name, each in followed().items()}
        undo.callback(setattr, found, "widths", widths)
        return undo.pop_all().close


def first_size(width: Width, start: int | None, rule: Rule, multiple_of: int) -> int:
    """The size that a width starts from.

    Raises:
        ConfigurationError: it is outside of what width, rule or multiple allow.
    """
    if start is not None and not 1 <= start <= width.size:
        raise ConfigurationError(
            f"start must be between 1 and the {width.size} units that width {width.name!r} came with, "
            f"got {start}"
        )
    size = width.size if start is None else round_up(start, max(1, multiple_of))
    least, most = rule.min_units or 1, rule.max_units or size
    if multiple_of < 1 or size % multiple_of or size > width.size or most % multiple_of:
        raise ConfigurationError(
            f"width {width.name!r} came with {width.size} units, starts from {size} and may have at most "
            f"{most}: all of them must be multiples of multiple_of, {multiple_of}; change them with start "
            f"and with rule=ds.Rule(max_units={most // max(1, multiple_of) * multiple_of})"
        )
    if not least <= size <= most:
        raise ConfigurationError(
            f"width {width.name!r} starts with {size} units, outside the rule's {least} "
            f"to {most}: change start, min_units or max_units"
        )
    return size


def _cannot_start(changes: Mapping[str, Change], proof: Proof) -> dict[str, str]:
    """The widths at whose first size the model does not run, and why.

    Raises:
        StructureError: it does not run at the first sizes of all the others together.
    """
    try:
        proof.runs(changes.values())
        return {}
    except ProofError:
        refused = {name: why for name, change in changes.items() if (why := _refusal(change, proof))}
    try:
        proof.runs([change for name, change in changes.items() if name not in refused])
    except ProofError as error:
        raise StructureError(f"from where the widths start, {error}: give another start") from error
    return refused


def _refusal(change: Change, proof: Proof) -> str | None:
    try:
        proof.runs([change])
    except ProofError as error:
        return f"starting from {change.new_size} units, {error}"
    return None
