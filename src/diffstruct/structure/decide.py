"""Decisions about widths: the rule's, carried over to multiples where sizes must be some. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffstruct.errors import StructureError
from diffstruct.rule import Decision, Rule, RuleState, Whole, check_finite, in_multiples


def decide_all(
    rules: Mapping[str, Rule],
    importances: Mapping[str, Tensor],
    states: Mapping[str, RuleState],
    spare: Mapping[str, NDArray[np.bool_]],
    multiple_of: Mapping[str, int],
    generator: np.random.Generator,
) -> dict[str, Whole]:
    """A decision about each width; arguments as of `decide`, by the widths' names.

    Raises:
        DivergenceError: an importance is not finite; the generator has not been used then.
        StructureError: one is no tensor `[n]`.
    """
    for name, each in importances.items():
        size = len(states[name].ages)
        if not isinstance(each, Tensor) or each.shape != (size,):
            shape = [*each.shape] if isinstance(each, Tensor) else f"a {type(each).__name__}"
            raise StructureError(
                f"the criterion's importance of width {name!r} must be a tensor of shape [{size}], one "
                f"number per unit, got {shape}"
            )
        check_finite(each.detach().double().cpu().numpy())
    return {
        name: decide(rules[name], each, states[name], spare[name], multiple_of[name], generator)
        for name, each in importances.items()
    }


def decide(
    rule: Rule,
    importances: Tensor,
    memory: RuleState,
    spare: NDArray[np.bool_],
    multiple_of: int,
    generator: np.random.Generator,
) -> Whole:
    """Ask the rule about the units of a width.

    Args:
        rule: complete, its times in decisions.
        importances: `[n]`.
        memory: the rule's, of these units.
        spare: `[n]`, units that are only there to fill up a multiple.
        multiple_of: the size after the decision is a multiple of this.
        generator: the only source of chance.

    Returns:
        The decision, and which units are spare after it.

    Raises:
        DivergenceError: an importance is not finite.
    """
    if multiple_of == 1:
        decision = rule.decide(importances, memory, generator)
        return Whole(decision, np.zeros(decision.new_size, np.bool_))
    values = importances.detach().double().cpu().numpy()
    threshold = rule.numbers(len(values), torch.float64).threshold
    live = np.flatnonzero(~spare | (values > threshold))
    asked = importances[torch.from_numpy(live).to(importances.device)]
    about: Decision = rule.decide(asked, RuleState(memory.ages[live], memory.risen[live]), generator)
    return in_multiples(about, live, values, memory, multiple_of)
