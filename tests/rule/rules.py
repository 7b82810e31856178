"""Random rules, importances and memories, and the paper's rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from diffstruct.rule import Rule, RuleState

PAPER = Rule(
    threshold=0.05,
    reserve=1,
    p_add=0.05,
    p_delete=0.25,
    p_spontaneous=1e-4,
    min_units=1,
    max_units=99,
    redraw_after=0,
    min_reserve=1,
    grace_period=0,
)
PROBABILITY = st.sampled_from([0.0, 1.0]) | st.floats(0, 1)
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def paper(**options: Any) -> Rule:
    """The paper's rule with other parameters."""
    return replace(PAPER, **options)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def importances_of(pattern: str, threshold: float = 0.05, dtype: torch.dtype = torch.float32) -> Tensor:
    """A letter per unit: `+` above the threshold, `=` exactly at it, `-` below."""
    values = {"+": 2 * threshold, "=": threshold, "-": threshold / 2}
    return torch.tensor([values[letter] for letter in pattern], dtype=dtype)


@st.composite
def rules(draw: Any) -> Rule:
    min_units = draw(st.integers(1, 4))
    max_units = draw(st.integers(max(2, min_units), 12))
    return paper(
        threshold=draw(st.sampled_from([0.05, 0.1, 3.0])),
        reserve=draw(st.integers(0, max_units - 1) | st.floats(0.05, 0.95)),
        p_add=draw(PROBABILITY),
        p_delete=draw(PROBABILITY),
        p_spontaneous=draw(PROBABILITY),
        min_units=min_units,
        max_units=max_units,
        redraw_after=draw(st.integers(0, 6)),
    )


@st.composite
def cases(draw: Any) -> tuple[Rule, str, Tensor, RuleState, int]:
    """A rule, importances of an allowed number of units, a memory, and a seed."""
    rule = draw(rules())
    size = draw(st.integers(rule.min_units, rule.max_units))
    pattern = draw(st.text("+=-", min_size=size, max_size=size))
    importances = importances_of(pattern, rule.threshold, draw(st.sampled_from(DTYPES)))
    ages = draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    risen = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    state = RuleState(np.array(ages), np.array(risen))
    return rule, pattern, importances, state, draw(st.integers(0, 2**32))


def reserve_of(rule: Rule, size: int) -> int:
    """The reserve that the rule wants in a width of `size` units."""
    return rule.numbers(size, torch.float32).reserve
