"""How a depth grows: how many blocks are to come, and where they help most."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffstruct.criteria import Criterion, Training
from diffstruct.rule import Decision, RuleState, addition
from diffstruct.surgery import Birth, Change, change_blocks, newborn
from diffstruct.width import Depth, Width, outside
from diffstruct.width.cost import sizes_of
from diffstruct.width.depth import children_of

WAIT = 0.05
"""The fraction of the run after which new blocks are looked at, and others may come."""

Worth = Callable[[NDArray[np.int64]], float | None]
"""What blocks are worth, by their indices, over their price; None where that cannot be told."""

Gradients = Callable[[Sequence[Tensor]], Sequence[Tensor] | None]
"""The gradients of the loss with respect to some parameters; None where they are not known."""


class Deepening:
    """Lets new blocks come once those that came last have earned their price.

    One comes first; then twice as many as came last, if these are worth their price after a twentieth of the
    run. Else they are waited for: until they are, which is followed by a single block, or until they have
    gone, which is followed by a single block after twice the time.

    Args:
        wait: decisions after which new blocks are looked at.
    """

    def __init__(self, wait: int) -> None:
        self._wait = self._due = max(1, wait)
        self._patience, self._last, self._age = 1, 0, 0
        self._waited = False

    def tick(self) -> None:
        """Another decision."""
        self._age += 1

    def more(self, ages: NDArray[np.int64], worth: Worth, most: int) -> int:
        """How many blocks are to come at a decision.

        Args:
            ages: of the blocks that there are, in decisions, `[n]`.
            worth: of some of them.
            most: blocks that there may be.
        """
        if self._age < self._due or len(ages) >= most:
            return 0
        young = np.flatnonzero(ages <= self._age) if self._last else np.arange(0)
        if len(young):
            value = worth(young)
            if value is not None and value <= 1:
                self._due, self._waited = self._age + self._wait, True
                return 0
        if self._last and not len(young):  # they have gone
            self._patience, add = 2 * self._patience, 1
        else:
            self._patience, add = 1, 1 if self._waited else max(1, 2 * self._last)
        self._last, self._age, self._waited = min(add, most - len(ages)), 0, False
        self._due = self._patience * self._wait
        return self._last


class Growth:
    """Of all depths: which grow at a decision, and by which blocks.

    Args:
        training: the run.
        widths: by name.
    """

    def __init__(self, training: Training, widths: Mapping[str, Width]) -> None:
        depths = [name for name, width in widths.items() if isinstance(width, Depth)]
        wait = math.ceil(WAIT * training.total_steps / training.interval)
        self._deepening = {name: Deepening(wait) for name in depths}

    def decide(
        self, states: Mapping[str, RuleState], widths: Mapping[str, Width], criterion: Criterion, step: int
    ) -> tuple[dict[str, Decision], dict[str, list[Birth]]]:
        """Let blocks come, of one depth at a time; nothing else is decided then.

        Args:
            states: the rule's memory of the units of each width.
            widths: by name.
            criterion: that judges them.
            step: the number of the step that the decision follows.

        Returns:
            Decisions about all widths, and the blocks that come, by the name of the depth; or nothing.
        """
        training = criterion.training
        for deepening in self._deepening.values():
            deepening.tick()
        for name, deepening in self._deepening.items() if criterion.may_add(step) else ():
            depth, most = widths[name], training.rules[name].max_units
            assert isinstance(depth, Depth)
            count = deepening.more(states[name].ages, partial(criterion.worth, name), most or depth.size)
            if not count or not criterion.affords(
                {**sizes_of(widths.values()), name: depth.size + count}, step
            ):
                continue
            run = training.model, depth, count, widths, criterion.gradients, training.generator
            found = births(*run)
            numbers = {each: len(found) if each == name else 0 for each in states}
            return {each: addition(state, numbers[each]) for each, state in states.items()}, {name: found}
        return {}, {}


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
