"""What is run: settings by study, each a task and how the rule differs from its default there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from points import classify, digits, spirals
from text import read

from diffstruct import AsTheModel, Criterion, Rule, Slot, TaylorImportance
from diffstruct.paper import tasks
from diffstruct.paper.revisions import OWN, get_revision

HARD_SIZES = (10, 20, 27, 37, 50, 100, 200)
DIGIT_SIZES = (8, 12, 16, 20, 24, 32, 64)
SPIRAL_SIZES = (8, 12, 16, 24, 32, 64)
STARTS = (1, 8, 128)
KNOBS: dict[str, tuple[float, ...]] = {
    "price": (0.1, 0.3, 3, 10),
    "decay": (0.1, 0.3, 3, 10),
    "power": (0.1, 0.5, 2, 10),
    "rise": (0.1, 10),
    "memory": (0.1, 10),
    "settling": (0.1, 0.3, 3, 10),
    "annealing": (0.1, 3, 8),
    "grace_period": (0.1, 3, 8),
    "reserve": (0.1, 3),
    "min_reserve": (0.25, 10),
    "p_add": (0.1, 10),
}
"""Parameters of criterion and rule, and what their defaults are multiplied by.

No more than 8 for the grace period and the annealing: ten times as long, they would fill the run, and no unit
would ever be added.
"""

QUICK = 10
"""How many times shorter a quick run is."""


@dataclass(frozen=True)
class Setting:
    """One setting of a study, run for several seeds.

    Args:
        study: what it belongs to.
        name: of the setting, in its study.
        seeds: how many.
        run: trains a network, given the seed and how many times shorter than usual.
        order: for what is plotted or ranked: a factor, a difficulty.
    """

    study: str
    name: str
    seeds: int
    run: Callable[[int, int], dict[str, Any]]
    order: float = 0.0


def settings() -> Iterator[Setting]:
    """All settings of all studies."""
    for task in ("hard", "easy", "transition"):
        yield Setting("paper", task, 20, partial(_text, task))
    for number in (2, 3):
        yield Setting("revisions", f"revision {number}", 20, partial(_text, "hard", revision=number))
    for size in HARD_SIZES:
        seeds = 20 if size <= 100 else 10
        yield Setting("sizes", f"hard, {size} fixed", seeds, partial(_text, "hard", fixed=size), size)
    for name, sizes in (("digits", DIGIT_SIZES), ("spirals", SPIRAL_SIZES)):
        yield Setting("points", name, 10, partial(_points, name))
        for size in sizes:
            yield Setting("points", f"{name}, {size} fixed", 10, partial(_points, name, fixed=size), size)
    for start in STARTS:
        for task, run in (("hard", _text), ("digits", _points)):
            yield Setting("starts", f"{task} from {start}", 10, partial(run, task, start=start), start)
    yield from _difficulties()
    yield from _ablations()
    yield from _sensitivities()


def _difficulties() -> Iterator[Setting]:
    for letters in range(3, 9):
        task = (tasks.Phase(0, tasks.hard(letters)),)
        yield Setting("letters", f"{letters} letters a group", 10, partial(_phases, task), letters)
    for turns in (0.5, 1.0, 1.5, 2.0):
        run = partial(_points, "spirals", scale=turns)
        yield Setting("turns", f"spirals of {turns:g} turns", 10, run, turns)
    for classes in (2, 4, 6, 8, 10):
        run = partial(_points, "digits", scale=classes)
        yield Setting("classes", f"{classes} classes of digits", 10, run, classes)


@dataclass(frozen=True)
class SmallWeights(AsTheModel):
    """New units all of whose weights are drawn with a standard deviation of 0.01."""

    outgoing_scale: float = 1.0

    def std(self, slot: Slot) -> float:
        """The same for all slots."""
        return 0.01


ABLATIONS: dict[str, dict[str, Any]] = {
    "all of it": {},
    "no decay of outgoing weights": {"criterion": {"decay": 0.0}},
    "decay at once, not with age": {"criterion": {"rise": 1e-9}},
    "decay in proportion (power 1)": {"criterion": {"power": 1.0}},
    "decay to the end (no annealing)": {"criterion": {"annealing": 1e-9}},
    "marginal importance, not conditional": {"criterion": {"conditional": False}},
    "second order alone, not the first": {"criterion": {"first_order": False}},
    "from the first moment on (no settling)": {"criterion": {"settling": 1e9}},
    "no grace period": {"rule": {"grace_period": 1}},
    "one new unit at a time": {"rule": {"reserve": 1}},
    "new units with weights of 0.01": {"criterion": {"initialization": SmallWeights()}},
}
"""What each setting changes."""


CLOSE = ("all of it",)
"""What is told apart from the others by more seeds."""


def _ablations() -> Iterator[Setting]:
    runs: dict[str, Callable[..., dict[str, Any]]] = {
        "hard": partial(_text, "hard"),
        "hardest": partial(_phases, (tasks.Phase(0, tasks.hard(8)),)),
        "easy": partial(_text, "easy"),
        "transition": partial(_text, "transition"),
        "digits": partial(_points, "digits"),
        "spirals": partial(_points, "spirals"),
    }
    for task, run in runs.items():
        for name, change in ABLATIONS.items():
            seeds = 20 if name in CLOSE else 5
            yield Setting(f"ablation: {task}", name, seeds, partial(run, **change))


def _sensitivities() -> Iterator[Setting]:
    for task, run, seeds in (("hard", _text, 3), ("digits", _points, 6)):
        for knob, factors in KNOBS.items():
            for factor in factors:
                kind = "criterion" if hasattr(TaylorImportance(), knob) else "rule"
                holder = TaylorImportance() if kind == "criterion" else TaylorImportance().default_rule
                default = getattr(holder, knob)
                value = type(default)(factor * default)
                if knob in ("grace_period", "reserve"):  # fractions
                    value = min(value, 0.999)
                change: dict[str, Any] = {kind: {knob: value}}
                yield Setting(
                    f"knobs: {task}", f"{knob} x {factor:g}", seeds, partial(run, task, **change), factor
                )


def _text(task: str, seed: int, shorter: int, **change: Any) -> dict[str, Any]:
    cycles = get_revision(change.get("revision")).cycles // shorter
    return _phases(tasks.schedule(task, cycles)[1], seed, shorter, **change)


def _phases(
    phases: Sequence[tasks.Phase],
    seed: int,
    shorter: int,
    revision: int | None = None,
    fixed: int | None = None,
    start: int = 1,
    **change: Any,
) -> dict[str, Any]:
    way = get_revision(revision)
    changed = _changed(way.criterion, way.rule, **change)
    # The losses of all are smoothed alike: revision 3's own average is ten times shorter.
    way = replace(way, cycles=way.cycles // shorter, smoothing=OWN.smoothing, **changed)
    return read(phases, seed, way, fixed, start)


def _points(
    task: str,
    seed: int,
    shorter: int,
    scale: float | None = None,
    fixed: int | None = None,
    start: int = 1,
    **change: Any,
) -> dict[str, Any]:
    make: Callable[..., Any] = digits if task == "digits" else spirals
    points = make() if scale is None else make(int(scale) if task == "digits" else scale)
    epochs = max(1, points.epochs // shorter)
    return classify(points, seed, fixed, start, epochs, **_changed(TaylorImportance(), Rule(), **change))


def _changed(
    whose: Criterion, its: Rule, criterion: dict[str, Any] | None = None, rule: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A criterion and a rule with some parameters changed."""
    return {"criterion": replace(whose, **criterion or {}), "rule": replace(its, **rule or {})}
