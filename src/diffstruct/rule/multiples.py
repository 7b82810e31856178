"""Sizes in multiples: what the rule decides unit by unit, carried out so that hardware likes the sizes.

The rule sees only the units that it asked for. Those that are there besides, to fill up the multiple, are
*spare*: units that the rule removed and that stay until there are enough of them, or new ones. A spare
whose importance rises above the threshold is a unit like any other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffstruct.rule.decision import Decision, RuleState


@dataclass(frozen=True)
class Whole:
    """A decision about all units of a width, and which of them are spare afterwards."""

    decision: Decision
    spare: NDArray[np.bool_]


def round_up(size: int, multiple_of: int) -> int:
    """The least multiple of `multiple_of` that holds `size` units."""
    return -(-size // multiple_of) * multiple_of


def in_multiples(
    decision: Decision,
    live: NDArray[np.int64],
    importances: NDArray[np.float64],
    memory: RuleState,
    multiple_of: int,
) -> Whole:
    """Carry a decision about the `live` units over to all of them, in multiples.

    Args:
        decision: what the rule decided, about `len(live)` units.
        live: `[k]`, the units that the rule was asked about, ascending.
        importances: `[n]`, of all units; the most important spares are kept.
        memory: the rule's memory of all units, `[n]`, as it was before.
        multiple_of: of which the size is a multiple, before and after.
    """
    size = len(importances)
    wanted = live[list(decision.keep)]
    target = round_up(len(wanted) + decision.add, multiple_of)
    is_wanted = np.zeros(size, np.bool_)
    is_wanted[wanted] = True
    spares = np.flatnonzero(~is_wanted)
    # A unit that the rule adds is a new one, so it takes the place of a spare that has had its chance.
    room = max(0, target - len(wanted) - decision.add)
    best = spares[np.argsort(-importances[spares], kind="stable")][:room]
    keep = np.sort(np.concatenate([wanted, best]))
    add = target - len(keep)
    ages, risen = memory.ages.copy(), memory.risen.copy()
    ages[wanted] = decision.state.ages[: len(wanted)]
    risen[wanted] = decision.state.risen[: len(wanted)]
    new = RuleState.initial(add)
    state = RuleState(np.concatenate([ages[keep], new.ages]), np.concatenate([risen[keep], new.risen]))
    spare = np.concatenate([~is_wanted[keep], np.arange(add) >= decision.add])
    return Whole(Decision(size, tuple(keep.tolist()), add, state), spare)
