"""What is run: settings by study, each a task and how the rule differs from its default there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from types import FunctionType
from typing import Any
from unittest.mock import patch

import numba
from points import classify, digits, spirals
from text import read

from diffstruct import UnitPrice
from diffstruct.criteria import importance
from diffstruct.nn.kernels.compile import OPTIONS
from diffstruct.paper import tasks
from diffstruct.paper.compiled import earning
from diffstruct.paper.revisions import OWN, get_revision
from diffstruct.structure.structure import EARNING_RULE

HARD_SIZES = (10, 20, 27, 37, 50, 100, 200)
DIGIT_SIZES = (8, 12, 16, 20, 24, 32, 64)
SPIRAL_SIZES = (8, 12, 16, 24, 32, 64)
STARTS = (1, 8, 128)
KNOBS: dict[str, tuple[float, ...]] = {
    "nats": (0.1, 0.3, 3, 10),
    "strength": (0.1, 0.3, 3, 10),
    "power": (0.1, 0.5, 2, 10),
    "rise": (0.1, 10),
    "memory": (0.1, 10),
    "ease": (0.1, 3, 8),
    "grace_period": (0.1, 3, 8),
    "reserve": (0.1, 3),
    "min_reserve": (0.25, 10),
    "p_add": (0.1, 10),
    "p_delete": (0.1, 10),
}
"""Knobs of `UnitPrice` and `Rule`, and what their defaults are multiplied by.

No more than 8 for trial and easing: ten times as long, they would fill the run, and no unit would ever come.
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


ABLATIONS: dict[str, dict[str, Any]] = {
    "all of it": {},
    "no price on what units say": {"price": {"strength": 0.0}},
    "price at once, not with age": {"price": {"rise": 1e-9}},
    "price in proportion (power 1)": {"price": {"power": 1.0}},
    "price to the end (no easing)": {"price": {"ease": 1e-9}},
    "earnings alone, not jointly": {"without": "joint"},
    "curvature alone, not the slope": {"without": "slope"},
    "no trial": {"rule": {"grace_period": 1}},
    "one newborn at a time": {"rule": {"reserve": 1}},
    "newborns hear and speak at 0.01": {"without": "voice"},
}


CLOSE = (
    "all of it",
    "price at once, not with age",
    "price to the end (no easing)",
    "curvature alone, not the slope",
)
"""What differs too little, or goes wrong too seldom, to be told apart with few seeds."""


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
                kind = "price" if hasattr(UnitPrice(), knob) else "rule"
                default = getattr(UnitPrice() if kind == "price" else EARNING_RULE, knob)
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
    without: str | None = None,
    **change: Any,
) -> dict[str, Any]:
    way = get_revision(revision)
    made = _made(change, max_units=way.rule.max_units)
    # The losses of all are smoothed alike: revision 3's own average is ten times shorter.
    way = replace(way, cycles=way.cycles // shorter, smoothing=OWN.smoothing, **made)
    with _without(without):
        return read(phases, seed, way, fixed, start)


def _points(task: str, seed: int, shorter: int, scale: float | None = None, **change: Any) -> dict[str, Any]:
    make: Callable[..., Any] = digits if task == "digits" else spirals
    points = make() if scale is None else make(int(scale) if task == "digits" else scale)
    with _without(change.pop("without", None)):
        return classify(points, seed, epochs=max(1, points.epochs // shorter), **_made(change))


def _made(change: dict[str, Any], **rule: Any) -> dict[str, Any]:
    """Options with the price and the rule made from what they differ in from the defaults."""
    if "price" in change or "rule" in change:
        price = replace(UnitPrice(), **change.pop("price", {}))
        changed = rule | change.pop("rule", {})
        change |= {"price": price, "rule": replace(EARNING_RULE, threshold=price.nats, **changed)}
    return change


def _curvature(diagonal: Any, mean: Any, predictions: float) -> Any:
    return 0.5 * diagonal


@cache
def _compiled_so() -> Callable[..., Any]:
    """The training loop with `_curvature` compiled into it, kept for this process alone."""
    loop = earning.advance.py_func
    names = loop.__globals__ | {"_alone": numba.njit(_curvature)}
    return numba.njit(nogil=True, **OPTIONS)(FunctionType(loop.__code__, names, argdefs=loop.__defaults__))


@contextmanager
def _without(ingredient: str | None) -> Iterator[None]:
    """Take out of the rule what no knob turns off."""
    if ingredient is None:
        yield
    elif ingredient == "joint":
        with patch.object(
            importance, "jointly", lambda fisher, unit_price: 0.5 * importance.diagonal(fisher)
        ):
            yield
    elif ingredient == "slope":
        with patch.object(importance, "alone", _curvature), patch.object(earning, "advance", _compiled_so()):
            yield
    elif ingredient == "voice":
        with (
            patch("diffstruct.criteria.initialization.Newborn._scale", lambda self, slot: 0.01),
            patch("diffstruct.criteria.initialization.VOICE", 1.0),
        ):
            yield
    else:
        raise ValueError(f"there is no ingredient {ingredient!r}")
