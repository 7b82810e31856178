"""The interface of what a unit is judged by.

`Structure` knows a criterion only through this class. A new one subclasses `Criterion` and has to say one
thing: the importance of each unit. All else has a default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from diffstruct.criteria.budget import Budget
from diffstruct.criteria.initialization import Initialization, SmallRandom
from diffstruct.distributed import Processes
from diffstruct.rule import Rule
from diffstruct.surgery import Change, Copy
from diffstruct.width import Cost, Width


@dataclass(frozen=True)
class Training:
    """What a criterion is told of the training run.

    Args:
        optimizers: those that train the model.
        total_steps: steps of the optimizer in which the structure is learned.
        interval: steps between two decisions.
        rules: of each width by name, complete, with times in decisions.
        generator: the only source of chance.
        traced: whether the widths were found by tracing, rather than declared by the model's modules.
        model: that is trained.
        called: what the user calls: the model, or what `torch.compile` made of it.
        budget: what the finished model may cost.
        multiply_adds: what a model of given sizes takes for an example, where the budget is of that.
        copies: of the model, that follow its sizes.
        processes: that train it: what is seen of a batch must go through these, so that all decide alike.
        multiple_of: of what the sizes of widths are multiples, by name; of one that is not named, of 1.
    """

    optimizers: Sequence[Optimizer]
    total_steps: int
    interval: int
    rules: Mapping[str, Rule]
    generator: np.random.Generator
    traced: bool
    model: nn.Module
    called: nn.Module
    budget: Budget | None = None
    multiply_adds: Cost | None = None
    copies: list[Copy] = field(default_factory=list)
    processes: Processes = field(default_factory=Processes)
    multiple_of: Mapping[str, int] = field(default_factory=dict)

    def decides(self, step: int) -> bool:
        """Whether there is a decision after the step of this number, counted from 1."""
        return step % self.interval == 0 and step <= self.total_steps

    def threshold(self, name: str) -> float:
        """The threshold of a width's rule."""
        threshold = self.rules[name].threshold
        assert threshold is not None
        return threshold

    def grace_period(self, name: str) -> int:
        """The grace period of a width's units, in decisions."""
        return int(self.rules[name].grace_period or 0)


class Criterion(ABC):
    """What units are judged by, what they cost, and what new ones begin with.

    `Structure` works with a copy of the criterion that it is given, so one object serves many structures. Its
    calls come in this order: `check_rule` and `refusal`; `attach`; `resize`, to the sizes that the widths
    start from; then `before_step` at each step of an optimizer, and at each decision `after_step`,
    `importance`, `initialize` (within surgery) and `resize`; at the end `conclude`, `importance`, `resize`
    and `detach`. Printing the structure asks for `importance`, too, at any time.

    Example:
        Units that are judged by the L2 norm of their incoming weights:

        >>> import torch
        >>> import diffstruct as ds
        >>> class IncomingNorm(ds.Criterion):
        ...     def importance(self, width):
        ...         slots = [s for s in width.having(ds.Role.INCOMING) if s.tensor.ndim > 1]
        ...         return sum(s.per_unit(s.tensor.detach() ** 2, width.axis) for s in slots).sqrt()
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> structure = ds.Structure(
        ...     model,
        ...     optimizer,
        ...     example_inputs=(torch.ones(2, 3),),
        ...     total_steps=9,
        ...     criterion=IncomingNorm(),
        ...     start=1,
        ... )
        >>> structure.widths["0"].size
        1
    """

    default_rule: Rule = Rule(
        threshold=0.05,
        reserve=1,
        p_add=0.05,
        p_delete=0.05,
        p_spontaneous=0.0,
        min_units=1,
        max_units=4096,
        redraw_after=1000,
        min_reserve=1,
        grace_period=0,
    )
    """The rule that goes with the criterion: it fills what a user's rule leaves open. By default the paper's,
    with dead units redrawn. A reserve that is a fraction of the width grows faster, in O(log W) events, but
    with an L1 price under Adam without end: a new unit crosses the threshold within a step or two, so that
    the reserve always falls short."""

    initialization: Initialization = SmallRandom()
    """What new units begin with."""

    widens: bool = False
    """Whether a width that starts below the size that the model came with grows back to it after the first
    step, by the units that it came with: the size that the user wrote is knowledge."""

    keeps_budgets: bool = False
    """Whether it brings the model to a `Budget`."""

    learns_depths: bool = False
    """Whether it judges residual blocks, and follows when they come and go."""

    knows_shards: bool = False
    """Whether it judges by weights of which each process has a part, as `fully_shard` leaves them."""

    acts_on_gradients: bool = False
    """Whether `before_step` changes gradients, which a closure given to the optimizer's step would undo."""

    unit_of_importance: str = "importance"
    """What importance is in, such as "L1 norm of the outgoing weights": a title for pictures."""

    training: Training
    """The run, from `attach` on."""

    def default_interval(self, total_steps: int, traced: bool) -> int:
        """Steps between two decisions where the user does not say."""
        return 16 if traced else 1

    def check_rule(self, rule: Rule, total_steps: int, name: str) -> None:
        """Refuse a rule under which no unit could be added, or none removed.

        Args:
            rule: complete; its grace period may be a fraction.
            total_steps: of the run.
            name: of the width.

        Raises:
            ConfigurationError: says which of the numbers to change.
        """

    def refusal(self, width: Width, training: Training) -> str | None:
        """Why the units of a width cannot be judged, or None if they can."""
        return None

    def attach(self, widths: Mapping[str, Width], training: Training) -> Mapping[str, Width]:
        """Get ready for a run: register hooks, add parameters. Either all of it or, with an error, nothing.

        Args:
            widths: those that are learned, by name, at the sizes that the model came with.
            training: the run.

        Returns:
            The widths, with the slots of parameters that the criterion has added.
        """
        self.training = training
        return widths

    @abstractmethod
    def importance(self, width: Width) -> Tensor:
        """One number per unit, `[n]`, in the unit of the rule's threshold."""

    def measured(self, width: Width) -> Tensor:
        """What units have been measured to be worth, `[n]`, for the history: `importance`, where that does
        not say more than what was measured."""
        return self.importance(width)

    @property
    def known_loss(self) -> float | None:
        """The loss in nats per prediction, a moving average, where the criterion knows it."""
        return None

    def before_step(self, optimizer: Optimizer) -> None:
        """Act on the gradients, right before a step of `optimizer`."""

    def after_step(self, step: int, ages: Mapping[str, NDArray[np.int64]]) -> None:
        """Act on the weights, after the last of the `interval` steps that a decision is about.

        Args:
            step: the number of that step, from 1.
            ages: of the units of each width, in decisions, this one not included.

        Raises:
            DivergenceError: something is not finite; nothing has changed then.
        """

    def record_next(self, wanted: bool) -> None:
        """Whether the gradients of the next step are those that a decision will be about; called after each
        decision, and before each step that one is about."""

    def may_add(self, step: int) -> bool:
        """Whether units may still be added at a step."""
        return True

    def initialize(self, changes: Sequence[Change], values: Mapping[Tensor, Tensor]) -> None:
        """Write the entries of new units, by default as `initialization` says.

        Args:
            changes: of all widths that change.
            values: the resized tensors, by those that they replace; new entries are zero, to be written in
                place.
        """
        thresholds = {name: self.training.threshold(name) for name in self.training.rules}
        self.initialization(changes, values, thresholds, self.training.generator)

    def resize(self, changes: Mapping[str, Change], step: int) -> None:
        """Follow a change of structure; called after each decision, also one that changes nothing.

        Args:
            changes: by the widths' names, those that changed: at the start, in a run, and by `finish`.
            step: steps made so far.
        """

    def follow(
        self, widths: Mapping[str, Width], training: Training, origin: Mapping[str, str | None]
    ) -> None:
        """Blocks have come or gone, and widths with them; called after `resize`, by depths alone.

        Args:
            widths: that there are now, by name.
            training: the run, with their rules.
            origin: the names that they had; None for new ones.
        """
        self.training = training

    def affords(self, sizes: Mapping[str, int], step: int) -> bool:
        """Whether the model may have these sizes at a step, as far as a budget goes."""
        return True

    @property
    def won(self) -> float:
        """What the network has won so far, in any unit; by which it is decided whether more blocks come."""
        return 0.0

    def fair_share(self, name: str) -> float:
        """The share of what was won that a block must be worth, on average."""
        return 0.0

    def worth(self, name: str, units: NDArray[np.int64]) -> float | None:
        """What blocks are worth together, over their price; None where that cannot be told."""
        return None

    def gradients(self, tensors: Sequence[Tensor]) -> Sequence[Tensor] | None:
        """The gradients of the loss of the last batch with respect to some tensors, by which the place of a
        new block is chosen; None where they are not known."""
        return None

    def remembered(self) -> Sequence[Tensor]:
        """Copies of weights that it keeps: several processes must start from the same."""
        return ()

    def conclude(self) -> None:
        """Get ready for the end: `importance` is asked for once more, for what stays in the plain model."""

    def costs(self) -> Mapping[str, float]:
        """What removing the units that were removed last has cost, by the widths' names, where it was
        measured."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What the criterion remembers of the run: numbers, strings and tensors, in dicts, lists and tuples.

        A criterion that remembers nothing but what lies in the model's parameters has none.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, with widths of the same sizes as then.

        Raises:
            StructureError: it is not what this criterion's `state_dict` returns.
        """

    def remarks(self) -> list[str]:
        """What the user should know of the finished sizes: a sentence each, that becomes a warning."""
        return []

    def describe(self) -> str:
        """What units are judged by, in a line."""
        return type(self).__name__

    def detach(self) -> None:
        """Take away all that `attach` has added, leaving the function of the model as it is."""
