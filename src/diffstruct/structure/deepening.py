"""How a depth grows: how many blocks are to come, and where they help most."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffstruct.criteria import Criterion, Training
from diffstruct.distributed import whole
from diffstruct.rule import Decision, RuleState, addition
from diffstruct.states import Fields
from diffstruct.surgery import Birth, Change, change_blocks, newborn
from diffstruct.width import Depth, Width, outside
from diffstruct.width.cost import sizes_of
from diffstruct.width.depth import children_of

WAIT = 0.05
"""The fraction of the run after which new blocks are looked at, and others may come, at the earliest."""

Worth = Callable[[NDArray[np.int64]], float | None]
"""What blocks are worth, by their indices, over their price; None where that cannot be told."""

Gradients = Callable[[Sequence[Tensor]], Sequence[Tensor] | None]
"""The gradients of the loss with respect to some parameters; None where they are not known."""


class Deepening:
    """Lets new blocks come where the network has nothing more to win without, as long as these pay.

    The network wins nothing more if, in a twentieth of the run, it has won less than the blocks that are to
    come would have to be worth. Those that came last have paid if so much was won since they came, and if as
    much is lost where they are silenced. Where they have paid at once, half as many come as there are; where
    it took longer, or the last ones have gone, one. Where they have not, none.

    With a budget there is no waiting until nothing more is won: what the model may cost only becomes less, so
    that blocks come while there is room for them, or never. Units then compete for what is left.

    Args:
        wait: decisions in a twentieth of the run.
        at_once: whether blocks come while the network is still winning.
    """

    def __init__(self, wait: int, at_once: bool = False) -> None:
        self._wait = max(1, wait)
        self._due, self._at_once = 1 if at_once else self._wait, at_once
        self._past: list[float] = []  # what was won at the last decisions
        self._came = 0.0  # what had been won when blocks came last
        self._patience, self._last, self._age, self._waited = 1, 0, 0, False

    def tick(self, won: float) -> None:
        """Another decision; so much has been won."""
        self._age += 1
        self._past = [*self._past, won][-self._wait - 1 :]

    def more(self, ages: NDArray[np.int64], fair: float, worth: Worth, most: int) -> int:
        """How many blocks are to come at a decision.

        Args:
            ages: of the blocks that there are, in decisions, `[n]`.
            fair: the share of what was won that a block must be worth.
            worth: of some of them.
            most: blocks that there may be.
        """
        if self._age < self._due or len(ages) >= most:
            return 0
        young = np.flatnonzero(ages <= self._age) if self._last else np.arange(0)
        gone = bool(self._last) and not len(young)
        add = 1 if gone or self._waited else max(1, len(ages) // 2)
        add = min(add, most - len(ages))
        if not self._at_once and self._share_since(self._past[0]) > add * fair:
            return 0
        if len(young) and not self._paid(young, fair, worth):
            self._due, self._waited = self._age + self._wait, True
            return 0
        self._patience = 2 * self._patience if gone else 1
        self._due = self._patience * self._wait
        self._last, self._age, self._waited = add, 0, False
        self._came, self._past = self._past[-1], self._past[-1:]
        return add

    def _paid(self, young: NDArray[np.int64], fair: float, worth: Worth) -> bool:
        lost = worth(young)
        if lost is None:  # nothing was won, so that nothing can be told
            return True
        return lost > 1 and self._share_since(self._came) >= len(young) * fair

    def _share_since(self, before: float) -> float:
        """The share of what was won that was won since."""
        won = self._past[-1]
        return (won - before) / won if won > 0 else 0.0

    def state_dict(self) -> dict[str, Any]:
        """What the next decisions depend on."""
        return {**{name.removeprefix("_"): getattr(self, name) for name in _NUMBERS}, "past": [*self._past]}

    def load_state_dict(self, state: Fields) -> None:
        """Go on from there."""
        past = [Fields({"won": won}, "past").number("won") for won in state.items("past")]
        came, waited = state.number("came"), state.flag("waited")
        due, patience, last, age = map(state.whole, ("due", "patience", "last", "age"))
        self._due, self._patience, self._last, self._age = due, patience, last, age
        self._past, self._came, self._waited = past, came, waited


_NUMBERS = ("_due", "_came", "_patience", "_last", "_age", "_waited")


class Growth:
    """Of all depths: which grow at a decision, and by which blocks.

    Args:
        training: the run.
        widths: by name.
    """

    def __init__(self, training: Training, widths: Mapping[str, Width]) -> None:
        depths = [name for name, width in widths.items() if isinstance(width, Depth)]
        wait = math.ceil(WAIT * training.total_steps / training.interval)
        self._deepening = {name: Deepening(wait, training.budget is not None) for name in depths}

    def state_dict(self) -> dict[str, Any]:
        """What the next decisions depend on, by the names of the depths."""
        return {name: each.state_dict() for name, each in self._deepening.items()}

    def load_state_dict(self, state: Fields) -> None:
        """Go on from there."""
        for name, each in self._deepening.items():
            each.load_state_dict(state.fields(name))

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
            deepening.tick(criterion.won)
        for name, deepening in self._deepening.items() if criterion.may_add(step) else ():
            depth, most = widths[name], training.rules[name].max_units
            assert isinstance(depth, Depth)
            worth = partial(criterion.worth, name)
            fair = criterion.fair_share(name)
            count = deepening.more(states[name].ages, fair, worth, most or depth.size)
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
        own = outside(widths.values(), [child]) | depth.stack.shared
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
    steepness = [sum(float(whole(next(each).double().square().sum())) for _ in tensors) for tensors in last]
    costs = [sum(p.numel() for p in birth.block.module.parameters()) for birth in found]
    return [steep / cost for steep, cost in zip(steepness, costs, strict=True)]
