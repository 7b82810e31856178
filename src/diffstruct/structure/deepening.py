"""How a depth grows: how many blocks are to come, and where they help most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffstruct.criteria import Criterion, Training
from diffstruct.rule import Decision, RuleState
from diffstruct.surgery import Birth, Change, change_blocks, newborn
from diffstruct.width import Depth, Width, outside
from diffstruct.width.cost import sizes_of
from diffstruct.width.depth import children_of

WAIT = 0.05
"""The fraction of the run after which new blocks are looked at, and others may come."""

Gradients = Callable[[Sequence[Tensor]], Sequence[Tensor] | None]
"""The gradients of the loss with respect to some parameters; None where they are not known."""


class Deepening:
    """Lets new blocks come while most of those that came last have earned their price.

    One comes first; then as many as came last, twice over, if at least half of these are worth their price
    after a twentieth of the run; else, after twice that time, one.

    Args:
        total_steps: of the run.
    """

    def __init__(self, total_steps: int) -> None:
        self._wait = max(1, round(WAIT * total_steps))
        self._due = self._wait
        self._patience = 1
        self._last = 0

    def more(self, step: int, importance: NDArray[np.float64], threshold: float, most: int) -> int:
        """How many blocks are to come at a decision.

        Args:
            step: made so far.
            importance: of the blocks that there are, new ones last.
            threshold: what a block must be worth.
            most: blocks that there may be.
        """
        if step < self._due or len(importance) >= most:
            return 0
        earned = int((importance[-self._last :] > threshold).sum()) if self._last else 1
        if 2 * earned >= self._last:
            self._patience, add = 1, max(1, 2 * self._last)
        else:
            self._patience, add = 2 * self._patience, 1
        self._due = step + self._patience * self._wait
        self._last = min(add, most - len(importance))
        return self._last


class Growth:
    """Of all depths: which grow at a decision, and by which blocks.

    Args:
        training: the run.
        widths: by name.
    """

    def __init__(self, training: Training, widths: Mapping[str, Width]) -> None:
        depths = [name for name, width in widths.items() if isinstance(width, Depth)]
        self._deepening = {name: Deepening(training.total_steps) for name in depths}

    def decide(
        self,
        decisions: dict[str, Decision],
        importances: Mapping[str, Tensor],
        widths: Mapping[str, Width],
        criterion: Criterion,
        step: int,
    ) -> dict[str, list[Birth]]:
        """Let blocks come, one depth at a time.

        Args:
            decisions: what else was decided, by name; the blocks that come are added.
            importances: of the units of all widths.
            widths: by name.
            criterion: that judges them.
            step: made so far.

        Returns:
            The blocks that come, by the name of the depth.
        """
        training = criterion.training
        for name, deepening in self._deepening.items():
            depth, decision, rule = widths[name], decisions[name], training.rules[name]
            assert isinstance(depth, Depth)
            if decision.changes or not criterion.may_add(step):
                continue
            values = importances[name].numpy()
            count = deepening.more(step, values, training.threshold(name), rule.max_units or depth.size)
            if count and criterion.affords({**sizes_of(widths.values()), name: depth.size + count}, step):
                run = training.model, depth, count, widths, criterion.gradients, training.generator
                found = births(*run)
                state = RuleState(*map(np.concatenate, _and_new(decision.state, len(found))))
                decisions[name] = replace(decision, add=len(found), state=state)
                return {name: found}
        return {}


def _and_new(state: RuleState, count: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    new = RuleState.initial(count)
    yield state.ages, new.ages
    yield state.risen, new.risen


def births(
    model: nn.Module,
    depth: Depth,
    count: int,
    widths: Mapping[str, Width],
    gradients: Gradients,
    generator: np.random.Generator,
) -> list[Birth]:
    """The blocks that are to come, one at each of the places where silent blocks get the largest gradient.

    A silent block at every place at once leaves the model what it is, so that one run shows all gradients.

    Args:
        model: the model.
        depth: of it.
        count: how many are to come, at most.
        widths: of the model, by name.
        gradients: of the loss.
        generator: the only source of chance.
    """
    chance = torch.Generator().manual_seed(int(generator.integers(2**62)))
    found = _everywhere(model, depth, widths, chance)
    if not found:
        return []
    undo = change_blocks(model, Change(depth, tuple(range(depth.size)), len(found)), found)
    try:
        slopes = _slopes(found, gradients)
    finally:
        undo()
    order = sorted(range(len(found)), key=lambda place: -slopes[place])
    return [found[place] for place in sorted(order[:count])]


def _everywhere(
    model: nn.Module, depth: Depth, widths: Mapping[str, Width], generator: torch.Generator
) -> list[Birth]:
    """A silent block behind each block that may be copied, and one in front of the first."""
    children, found = children_of(depth.stack.container), []
    blocks = {block.module: block for block in depth.stack.blocks}
    first = True
    for place, child in enumerate(children):
        block = blocks.get(child)
        if block is None or not block.copies:
            continue
        own = outside(widths.values(), child)
        behind = children[place + 1] if place + 1 < len(children) else None
        if first and depth.stack.front:
            found.append(newborn(model, depth, block, child, own, generator))
        found.append(newborn(model, depth, block, behind, own, generator))
        first = False
    return found


def _slopes(found: Sequence[Birth], gradients: Gradients) -> list[float]:
    """How steeply the loss falls with each new block, for what the block costs."""
    last = [[getattr(module, name) for module, name in birth.block.last] for birth in found]
    slopes = gradients([tensor for tensors in last for tensor in tensors])
    if slopes is None:
        return [float(place) for place in range(len(found))]
    each = iter(slopes)
    steepness = [sum(float(next(each).double().square().sum()) for _ in tensors) for tensors in last]
    costs = [sum(p.numel() for p in birth.block.module.parameters()) for birth in found]
    return [steep / cost for steep, cost in zip(steepness, costs, strict=True)]
