"""The paper's training loop, compiled: whole updates of one small network, without an interpreter between.

`advance` does what `training.Trainer.update` does with PyTorch. What differs between the revisions are its
arguments `optimizer` and `criterion`, whose types choose the code that is compiled.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from diffstruct.nn.kernels.compile import compiled
from diffstruct.paper.compiled.criteria import after_step, before_step, judge
from diffstruct.paper.compiled.network import backward, empty_like, forward
from diffstruct.paper.compiled.optimizers import optimize
from diffstruct.rule import choose

CONTINUES, CHANGES, DIVERGED = 0, 1, 2
"""Why `advance` came back: all updates made; the structure is to change; loss or importance is not finite."""

_choose = compiled(choose)


@compiled
def advance(
    text: Any,
    position: int,
    length: int,
    updates: int,
    w: Any,
    defect: bool | None,
    optimizer: Any,
    step: int,
    criterion: Any,
    judged: bool,
    state: Any,
    smoothed: float,
    smoothing: float,
    ages: Any,
    risen: Any,
    generator: Any,
    rule: Any,
) -> Any:
    """Make `updates` whole updates, or as many as it takes until the structure is to change.

    Args:
        text: symbols, int64; the first update reads `length` of them from `position` on.
        w: the parameters, trained in place, `network.Tensors`.
        defect: as in `network.backward`.
        optimizer: one of the types of `optimizers`.
        step: steps that it has made before.
        criterion: one of the types of `criteria`.
        judged: whether the rule is asked after each update.
        state: `[N]`, the hidden state, carried on in place.
        smoothed: the moving average of the loss.
        smoothing: its decay.
        ages: `[N]`, the rule's memory, like `risen` in place.
        generator: of the rule.
        rule: `RuleNumbers`.

    Returns:
        Why it came back, how many updates it made, the moving average of the loss, the last loss, and the
        decision: which units are removed, `[N]` bool, and how many are added. An update whose loss is not
        finite is not made; one whose importances are not finite is, up to the rule.
    """
    units, symbols = state.shape[0], w.W_hy.shape[0]
    states = np.empty((length + 1, units), state.dtype)
    errors = np.empty((symbols, length), state.dtype)
    g = empty_like(w)
    none = np.zeros(units, np.bool_)
    loss = 0.0
    for update in range(updates):
        start = position + update * length
        inputs = text[start : start + length]
        targets = text[start + 1 : start + length + 1]
        loss = forward(inputs, targets, w, state, states, errors)
        if not math.isfinite(loss):
            return DIVERGED, update, smoothed, loss, none, 0
        backward(inputs, w, states, errors, g, defect)
        before_step(criterion, w, g, ages)
        step += 1
        optimize(optimizer, w, g, step)
        after_step(criterion, w, ages, step)
        state[:] = states[length]
        smoothed = smoothing * smoothed + (1 - smoothing) * loss
        if judged:
            importances = judge(criterion, w)
            if not np.isfinite(importances).all():
                return DIVERGED, update + 1, smoothed, loss, none, 0
            removed, add = _choose(importances, ages, risen, generator, rule)
            if add > 0 or removed.any():
                return CHANGES, update + 1, smoothed, loss, removed, add
    return CONTINUES, updates, smoothed, loss, none, 0
