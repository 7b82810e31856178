"""Importance in the one unit that every loss has: the share of what the network has won."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, ClassVar
from weakref import WeakMethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from diffstruct.criteria import memory
from diffstruct.criteria.budget import BudgetPath
from diffstruct.criteria.criterion import Criterion, Training
from diffstruct.criteria.decay import Decay, annealing
from diffstruct.criteria.initialization import AsTheModel, Initialization
from diffstruct.criteria.outputs import Outputs
from diffstruct.criteria.removal import Removals
from diffstruct.criteria.settling import Settling
from diffstruct.criteria.tracker import ImportanceTracker, grace_ended, move_names, ramp_length
from diffstruct.distributed import Seen
from diffstruct.errors import ConfigurationError
from diffstruct.rule import Rule
from diffstruct.states import Fields, tensor_of
from diffstruct.surgery import Change
from diffstruct.width import READERS, Depth, Width
from diffstruct.width.cost import Cost, ParameterCount, sizes_of

INTERVAL, FEWEST_DECISIONS, MOST_DECISIONS = 32, 30, 2500
"""Steps between two decisions; fewer in runs too short for so many decisions, more in longer ones."""

REFRESH, REFRESH_STEPS = 4, 64
"""Decisions, and steps, between two computations of importance at most: units are tried about as often."""


@dataclass
class TaylorImportance(Criterion):
    """Judge a unit by what it wins against what it costs: *a unit stays if it is worth its price*.

    The importance of a unit is its share of what the network has won, over its share of what the network
    costs. Won is how far the loss is below the best that a constant output could have; a unit's share of it
    is what silencing the unit would lose, estimated while the model trains (see `importance`). A unit whose
    importance is not above `price` once its grace period is over is silenced on the batch at hand; if that
    loses no more than the price, it is removed (see `removal`). Its outgoing weights decay on the way there
    (see `decay`).

    Nobody is removed, and nothing decays, while the network is still winning much.

    None of this depends on the scale of the loss, on the optimizer or on its learning rate.

    Args:
        price: the share of what was won that a unit must be worth, for the share of the cost that it takes:
            the one knob. At 0.3, a hundredth of the network must be worth three thousandths of what it has
            won. A `Rule.threshold` for a width stands in its place there.
        decay: the decay of the outgoing weights of a useless unit, in units of how far training moves
            weights.
        power: above 1, units whose importance is above the price decay less than in proportion.
        rise: the fraction of the run over which the decay rises, from the end of a unit's grace period on.
        memory: the fraction of the run that the moving averages of importance look back on, and ten decisions
            at least.
        settling: nobody goes while more than this share of what was won came in the last tenth of the run.
        annealing: the fraction of the run, at its end, over which the decay is annealed to nothing; in the
            second half of it nobody goes.
        cost: of the model, by the sizes of its widths, such as `MultiplyAdds`; None: what is budgeted, and
            without a budget its parameters.
        first_order: False to leave the first order of Taylor's series out.
        conditional: False to leave out what the other units could take over.
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
        ...     criterion=ds.TaylorImportance(price=0.1),
        ... )
        >>> structure.criterion.describe()
        'TaylorImportance, price 0.1'
    """

    price: float = 0.3
    decay: float = 1.0
    power: float = 2.0
    rise: float = 0.2
    memory: float = 0.02
    settling: float = 0.05
    annealing: float = 0.1
    cost: Cost | None = None
    first_order: bool = True
    conditional: bool = True
    initialization: Initialization = field(default_factory=AsTheModel)

    unit_of_importance: ClassVar[str] = "share of what was won, over share of the cost"  # type: ignore[misc]
    widens: ClassVar[bool] = True  # type: ignore[misc]
    keeps_budgets: ClassVar[bool] = True  # type: ignore[misc]
    learns_depths: ClassVar[bool] = True  # type: ignore[misc]
    knows_shards: ClassVar[bool] = True  # type: ignore[misc]
    _rule: ClassVar[Rule] = Rule(
        reserve=0.3,
        p_add=0.05,
        p_delete=1.0,
        p_spontaneous=0.0,
        min_units=1,
        redraw_after=0,
        min_reserve=4,
        grace_period=0.1,
    )

    def __post_init__(self) -> None:
        for name in ("price", "decay", "power", "rise", "memory", "settling", "annealing"):
            value, zero = getattr(self, name), name == "decay"
            number = float(value) if isinstance(value, Real) else math.nan
            if not (math.isfinite(number) and (number > 0 or (zero and number == 0))):
                least = "of at least 0" if zero else "above 0"
                raise ConfigurationError(f"{name} must be a number {least}, got {value!r}")

    @property
    def default_rule(self) -> Rule:  # type: ignore[override]
        """Many new units, each with a grace period; the threshold is the price."""
        return replace(self._rule, threshold=self.price)

    def default_interval(self, total_steps: int, traced: bool) -> int:
        """A decision at every 32nd step, and from 30 to 2,500 decisions in the run."""
        return max(1, min(INTERVAL, total_steps // FEWEST_DECISIONS), total_steps // MOST_DECISIONS)

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
        """Watch the gradients of outgoing weights, and the outputs of the model."""
        costs = _costs(widths, training)
        cost, path = costs["parameters"], None
        if training.budget is not None:
            path = BudgetPath(training.budget, costs, _largest(widths, training), training.total_steps)
            cost = path.price
        self.tracker = ImportanceTracker(widths, self, training, self.cost or cost)
        self.outputs = Outputs(training.called, training.model)
        self.outputs.recording = self.tracker.recording
        if training.processes.sharding is not None:
            self.outputs.afterwards = WeakMethod(self.tracker.record_all)
        self.removals = Removals(self.tracker, self.outputs, training, path)
        self._decay = Decay(self.tracker.rate)
        self._settling = Settling(training.total_steps)
        self._ages = {name: np.zeros(width.size, np.int64) for name, width in widths.items()}
        self._final, self._pressure = False, 0.0
        self._stepped: set[int] = set()  # which optimizers have, by their numbers
        grace = training.interval * max(map(training.grace_period, training.rules))
        self._last_addition = math.floor((1 - self.annealing) * training.total_steps) - grace
        return super().attach(widths, training)

    def importance(self, width: Width) -> Tensor:
        """What each unit wins over what it costs, `[n]`, in shares.

        A unit past its grace period that was not shown to be removable counts as just worth its price.
        """
        name, price = width.name, self.training.threshold(width.name)
        old = np.ones(width.size, np.bool_) if self._final else self._past_grace(name)
        worth = np.maximum(self.removals.importance(name), np.nextafter(price, np.inf))
        values = np.where(old, worth, self.tracker.alone[name])
        if not self._final:
            values[self.removals.shown[name]] = 0.0
        if name in self.removals.pending:
            values[self.removals.pending[name].units] = 0.0
        return torch.from_numpy(values)

    def measured(self, width: Width) -> Tensor:
        """The shares alone: nothing of what was shown by trying units."""
        name = width.name
        old = np.ones(width.size, np.bool_) if self._final else self._past_grace(name)
        return torch.from_numpy(np.where(old, self.removals.importance(name), self.tracker.alone[name]))

    @property
    def known_loss(self) -> float | None:
        """Of a cross-entropy, which the gradient gives away."""
        loss = self.tracker.loss
        return None if loss is None or loss.kind == "other" else loss.nats

    def before_step(self, optimizer: Optimizer) -> None:
        """Record gradients that `backward` did not show to hooks."""
        self.tracker.record_missing()
        self._stepped.add(self.training.optimizers.index(optimizer))

    def after_step(self, step: int, ages: Mapping[str, NDArray[np.int64]]) -> None:
        """Enter what the step showed, let weights decay, and find the units that may go."""
        self._ages = {**ages}
        self.removals.pending = {}
        tracker, training = self.tracker, self.training
        sizes = {name: width.size for name, width in tracker.widths.items()}
        training.processes.settle()
        sharded = training.processes.sharding is not None
        seen = Seen(bool(self._stepped), tracker.take(), self.outputs.rows(), sharded)
        seen = training.processes.together(seen, sizes, step)
        # A GradScaler leaves out steps where gradients overflow, of several optimizers those that have them.
        whole = len(self._stepped) == len(training.optimizers) or seen.finite
        if seen.slopes and not (seen.stepped and whole):
            self.outputs.clear()
            return
        loss = None if seen.rows is None else self.outputs.loss(seen.rows)
        tracker.update(ages, loss, seen.rows is not None, seen.slopes)
        self._decay.measure([tensor for tensor, _ in tracker.readers], training.processes)
        every = training.interval * max(1, min(REFRESH, REFRESH_STEPS // training.interval))
        if not tracker.shares or step % every == 0:
            tracker.refresh()
            won = tracker.won if tracker.won_something else 0.0
            self._pressure = self._settling.pressure(step, won, self.settling)
        pressure = self._pressure
        prices = {name: training.threshold(name) for name in tracker.widths}
        self._decay.apply(
            tracker.readers,
            {name: self.removals.importance(name) for name in tracker.widths},
            ages,
            prices,
            {name: training.grace_period(name) for name in tracker.widths},
            self.decay * pressure**3 * annealing(step, training.total_steps, self.annealing),
            self.power,
            ramp_length(self.rise, training),
        )
        if step <= (1 - self.annealing / 2) * training.total_steps:
            self.removals.find(step, ages, pressure)

    def record_next(self, wanted: bool) -> None:
        """Let the hooks record, or not."""
        self.tracker.recording = self.outputs.recording = wanted
        self.outputs.processes = self.training.processes.size
        self._stepped = set()
        if wanted:
            self.outputs.begin()

    def may_add(self, step: int) -> bool:
        """Not towards the end: such a unit would still be in its grace period at the annealing."""
        return step < self._last_addition

    def conclude(self) -> None:
        """Find the units that may go at the end, in evaluation mode."""
        self._final = True
        rules = self.training.rules
        self.removals.conclude({name: rules[name].min_units or 1 for name in self.tracker.widths})

    def costs(self) -> Mapping[str, float]:
        """The share of what was won that went with the units removed last, measured before, by width."""
        found = {name: removal.cost for name, removal in self.removals.pending.items()}
        return {name: cost for name, cost in found.items() if cost is not None}

    def resize(self, changes: Mapping[str, Change], step: int) -> None:
        """Follow the units, and let those that stay take over."""
        if changes:
            self.removals.take_over(changes, self.training.copies)
        self.removals.pending = {}
        self.tracker.resize(changes)
        for name, change in changes.items():
            ages = self._ages[name][list(change.keep)]
            self._ages[name] = np.concatenate([ages, np.zeros(change.add, np.int64)])
        self._decay.remember([tensor for tensor, _ in self.tracker.readers])
        if changes:
            self.outputs.clear()  # a hidden state among the inputs would be of the sizes before

    def follow(
        self, widths: Mapping[str, Width], training: Training, origin: Mapping[str, str | None]
    ) -> None:
        """Go on with what is known of the widths that stay."""
        super().follow(widths, training, origin)
        costs, path = _costs(widths, training), self.removals.budget
        if path is not None:
            path.follow(costs)
        before = [tensor for tensor, _ in self.tracker.readers]
        cost = self.cost or (costs["parameters"] if path is None else path.price)
        self.tracker.follow(widths, training, cost, origin)
        self.removals.follow(training, path, origin)
        self._decay.follow(before, [tensor for tensor, _ in self.tracker.readers])
        move_names(self._ages, origin)
        for name, width in widths.items():
            self._ages.setdefault(name, np.zeros(width.size, np.int64))

    def affords(self, sizes: Mapping[str, int], step: int) -> bool:
        """Whether the budget allows what a model of these sizes costs."""
        path = self.removals.budget
        return path is None or path.spent(sizes) <= path.allowed(step)

    @property
    def won(self) -> float:
        """In the unit of `tracker.won`."""
        return self.tracker.won if self.tracker.won_something else 0.0

    def fair_share(self, name: str) -> float:
        """By the price, and what a block costs."""
        return self.tracker.fair_share(name) if self.tracker.shares else 0.0

    def worth(self, name: str, units: NDArray[np.int64]) -> float | None:
        """By silencing them on the last batch."""
        return self.removals.worth(name, units)

    def gradients(self, tensors: Sequence[Tensor]) -> Sequence[Tensor] | None:
        """By running the model once more on the last batch."""
        processes = self.training.processes
        if not processes.all(self.outputs.finite):
            return None
        if processes.sharding is not None:
            found = self.outputs.reduced_gradients(tensors)
            processes.settle()
            return found
        found = self.outputs.gradients(tensors)
        mean = processes.mean(found, [tensor.shape for tensor in tensors])
        return [each for each in mean if each is not None]

    def remembered(self) -> Sequence[Tensor]:
        """By which the decay measures how far training moves weights."""
        return self._decay.remembered

    def state_dict(self) -> dict[str, Any]:
        """What is remembered of the run; see `memory`."""
        return {
            "tracker": memory.tracker_state(self.tracker),
            "removals": memory.removals_state(self.removals),
            "outputs": memory.outputs_state(self.outputs, self.training.processes),
            "decay": self._decay.state_dict(memory.readers_of(self.tracker), self.training.processes),
            "settling": self._settling.state_dict(),
            "ages": {name: tensor_of(ages) for name, ages in self._ages.items()},
            "pressure": self._pressure,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        fields = Fields(state, "criterion")
        sizes = sizes_of(self.tracker.widths.values())
        ages, pressure = fields.fields("ages"), fields.number("pressure")
        self._ages = {name: ages.array(name, (size,), np.int64) for name, size in sizes.items()}
        memory.load_tracker(self.tracker, fields.fields("tracker"))
        memory.load_removals(self.removals, fields.fields("removals"))
        memory.load_outputs(self.outputs, fields.fields("outputs"), self.training.processes)
        self._decay.load_state_dict(fields.fields("decay"), memory.readers_of(self.tracker))
        self._settling.load_state_dict(fields.fields("settling"))
        self._pressure = pressure

    def remarks(self) -> list[str]:
        """That nothing was won, or that the budget is not met, if so."""
        found, path = [], self.removals.budget
        if self.tracker.observations and not self.tracker.won_something:
            found.append(
                "the network has won nothing over a constant output, so that no unit was judged: look at the "
                "learning rate and the data"
            )
        missed = path.missed(sizes_of(self.tracker.widths.values())) if path is not None else []
        found += [
            f"{each}: sizes are at their minimum or in multiples, or no batch was seen; lower min_units or "
            "multiple_of, or give more"
            for each in missed
        ]
        return found

    def describe(self) -> str:
        """The price, and what the network has won."""
        loss = self.tracker.loss
        known = loss is not None and loss.kind != "other" and self.tracker.won_something
        told = f", {self.tracker.won:.3g} nats won" if known else ""
        return f"{type(self).__name__}, price {self.price:g}{told}"

    def detach(self) -> None:
        """Take the hooks away."""
        self.tracker.detach()
        self.outputs.detach()

    def _past_grace(self, name: str) -> NDArray[np.bool_]:
        return grace_ended(self.training, name, self._ages[name])


def _largest(widths: Mapping[str, Width], training: Training) -> dict[str, int]:
    """The sizes that the way to a budget begins with: those of the model, with all blocks that may come.

    From the blocks alone that a depth starts with, none could ever come: the way only leads down.
    """
    most = {name: training.rules[name].max_units for name in widths if isinstance(widths[name], Depth)}
    return {name: most.get(name) or size for name, size in sizes_of(widths.values()).items()}


def _costs(widths: Mapping[str, Width], training: Training) -> dict[str, Cost]:
    """What a model of given sizes costs, by the names that a `Budget` has for it."""
    costs: dict[str, Cost] = {"parameters": ParameterCount(training.model, widths)}
    if training.multiply_adds is not None:
        costs["flops"] = training.multiply_adds
    return costs
