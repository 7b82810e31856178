"""Importance in nats: what a unit saves of the loss, by Taylor's series (see `importance`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from diffstruct.criteria.criterion import Criterion, Training
from diffstruct.criteria.initialization import AsTheModel, Initialization
from diffstruct.criteria.tracker import ImportanceTracker
from diffstruct.errors import ConfigurationError
from diffstruct.rule import Rule
from diffstruct.surgery import Change
from diffstruct.width import READERS, Width

MOST_INTERVAL = 16
"""Steps between two decisions at most, unless the user asks for more."""


@dataclass
class TaylorImportance(Criterion):
    """Judge a unit by the loss, in nats, that silencing it would cost: *a unit stays if it saves its price*.

    The importance of a unit is measured while the model trains (see `importance`). A unit that saves less
    than `price` once its grace period is over is deleted; and its outgoing weights decay by
    `decay * lr * ramp * (price / (importance + price)) ** power` a step, `lr` being the learning rate,
    and `ramp` rising from 0 to 1 with the unit's age. So useless units fade, useful ones hardly decay, and
    new ones have time to become useful. Towards the end of the run the decay is annealed to nothing, so that
    the units that stay can settle, and no unit is added whose grace period would not be over by then.

    Its importance is in nats where the loss is a negative log-likelihood.

    Args:
        price: of a unit, in nats of loss per prediction: the one knob. Half of it, and about as many units
            more. A `Rule.threshold` for a width stands in its place there.
        decay: the decay of the outgoing weights of a useless unit, in units of the learning rate, as a weight
            decay's.
        power: above 1, units whose importance is above the price decay less than in proportion.
        rise: the fraction of the run that the ramp takes, from the end of a unit's grace period on.
        memory: the fraction of the run that the moving averages of importance look back on, and ten decisions
            at least.
        annealing: the fraction of the run, at its end, over which the decay is annealed to nothing.
        predictions: the loss is the mean, or the sum, over so many predictions in one step; None: as many as
            the model makes for the example inputs (rows of its first output, all but the last dimension; of
            images, pixels), which `print(structure)` shows.
        reduction: `"mean"`, or `"sum"` where the loss is the sum over the predictions.
        first_order: False to leave the first order of Taylor's series out (`docs/evidence.md` shows what
            that does).
        conditional: False to leave out what the other units could take over (likewise).
        initialization: what new units begin with.

    Raises:
        ConfigurationError: a parameter that cannot work.

    Example:
        >>> import torch
        >>> import diffstruct as ds
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> structure = ds.Structure(
        ...     model, optimizer, example_inputs=(torch.ones(64, 3),), total_steps=1000,
        ...     criterion=ds.TaylorImportance(price=5e-4),
        ... )
        >>> structure.criterion.describe()
        'TaylorImportance, 0.0005 nats a unit, the loss being the mean over 64 predictions'
    """

    price: float = 1e-3
    decay: float = 7.0
    power: float = 2.0
    rise: float = 0.2
    memory: float = 0.01
    annealing: float = 0.1
    predictions: float | None = None
    reduction: Literal["mean", "sum"] = "mean"
    first_order: bool = True
    conditional: bool = True
    initialization: Initialization = field(default_factory=AsTheModel)

    _rule: ClassVar[Rule] = Rule(
        reserve=0.3,
        p_add=0.05,
        p_delete=0.1,
        p_spontaneous=0.0,
        min_units=1,
        max_units=4096,
        redraw_after=0,
        min_reserve=4,
        grace_period=0.1,
    )

    def __post_init__(self) -> None:
        for name in ("price", "power", "rise", "memory", "annealing", "predictions"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigurationError(f"{name} must be a number above 0, got {value!r}")
        if not (self.decay >= 0 and math.isfinite(self.decay)):
            raise ConfigurationError(f"decay must be a number of at least 0, got {self.decay!r}")
        if self.reduction not in ("mean", "sum"):
            raise ConfigurationError(f"reduction must be 'mean' or 'sum', got {self.reduction!r}")

    @property
    def default_rule(self) -> Rule:  # type: ignore[override]
        """Many new units, each with a grace period; the threshold is the price."""
        return replace(self._rule, threshold=self.price)

    def default_interval(self, total_steps: int, traced: bool) -> int:
        """5,000 decisions in the run, but one at every 16th step at least."""
        return min(MOST_INTERVAL, max(1, total_steps // 5000))

    def check_rule(self, rule: Rule, total_steps: int, name: str) -> None:
        """Refuse a grace period that leaves no time in which units could be added.

        Raises:
            ConfigurationError: it fills the run, together with the annealing.
        """
        grace = rule.grace_period or 0
        grace = grace / total_steps if isinstance(grace, int) else grace
        if (rule.p_add or rule.p_spontaneous) and grace + self.annealing >= 1:
            raise ConfigurationError(
                f"the grace_period, {grace:.0%} of {total_steps} steps for width {name!r}, and the "
                f"annealing, {self.annealing:.0%}, leave no time in which units could be added: "
                "shorten one of them, or add none (p_add=0, p_spontaneous=0)"
            )

    def refusal(self, width: Width, training: Training) -> str | None:
        """A width that frozen weights read: there is no gradient to measure its importance by."""
        for slot in width.having(*READERS):
            if not slot.tensor.requires_grad:
                return (
                    f"is read by {slot}, which is frozen, so that its importance cannot be measured: exclude "
                    "it, or use criterion=ds.OutgoingNorm()"
                )
        return None

    def attach(self, widths: Mapping[str, Width], training: Training) -> Mapping[str, Width]:
        """Watch the gradients of outgoing weights.

        Raises:
            ConfigurationError: nothing says how many predictions the loss is the mean of.
        """
        if self.predictions is None:
            if training.predictions is None:
                raise ConfigurationError(
                    "without example_inputs nothing says over how many predictions the loss is the mean: "
                    "give criterion=ds.TaylorImportance(predictions=...), such as batch size times sequence "
                    "length, and reduction='sum' if the loss is their sum"
                )
            self.predictions = float(training.predictions)
        self.tracker = ImportanceTracker(widths, self, training)
        return super().attach(widths, training)

    def importance(self, width: Width) -> Tensor:
        """The loss of silencing each unit alone, `[n]`, in nats per prediction."""
        return torch.from_numpy(self.tracker.marginal(width.name))

    def before_step(self, optimizer: Optimizer) -> None:
        """Record gradients that `backward` did not show to hooks (`torch.autograd.grad`, `torch.func`)."""
        self.tracker.record_missing()

    def after_step(self, step: int, ages: Mapping[str, NDArray[np.int64]]) -> None:
        """Enter the gradients of the step, and let outgoing weights decay."""
        self.tracker.update(ages)
        self.tracker.apply_decay(ages, step)

    def record_next(self, wanted: bool) -> None:
        """Let the hooks record, or not."""
        self.tracker.recording = wanted

    def may_add(self, step: int) -> bool:
        """Not towards the end: such a unit would still be in its grace period at the annealing."""
        return step < self.tracker.last_addition

    def resize(self, changes: Mapping[str, Change], step: int) -> None:
        """Follow the units; recompute the importance that the decay depends on, if it is time for it."""
        self.tracker.resize(changes)
        self.tracker.refresh(step)

    def describe(self) -> str:
        """The price, and what the loss is taken for."""
        count = "" if self.predictions is None else f" over {self.predictions:g} predictions"
        return (
            f"{type(self).__name__}, {self.price:g} nats a unit, the loss being the {self.reduction}{count}"
        )

    def detach(self) -> None:
        """Take the hooks away."""
        self.tracker.detach()
