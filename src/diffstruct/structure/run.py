"""The training run as criterion and rule see it: checked options, with all that was left open filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import nn
from torch.optim import Optimizer

from diffstruct.couple import FoundWidths, MultiplyAdds
from diffstruct.criteria import Budget, Criterion, Training
from diffstruct.distributed import Processes
from diffstruct.errors import ConfigurationError
from diffstruct.rule import Rule
from diffstruct.surgery import check_optimizer
from diffstruct.width import Depth, Followed, Width
from diffstruct.width.patterns import by_name


def training_run(
    called: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    total_steps: int,
    found: FoundWidths,
    criterion: Criterion,
    rule: Rule | Mapping[str, Rule] | None,
    interval: int | None,
    seed: int,
    budget: Budget | None,
    multiple_of: Mapping[str, int],
    processes: Processes,
) -> Training:
    """What `Structure`'s arguments say of the run; see there.

    Raises:
        StructureError: an optimizer cannot follow changes of structure, or the multiply-adds that the budget
            is of cannot be counted.
        ConfigurationError: a parameter that cannot work.
    """
    optimizers = optimizers_of(optimizer)
    for each in optimizers:
        check_optimizer(each)
    if not (isinstance(total_steps, int) and total_steps >= 1):
        raise ConfigurationError(f"total_steps must be a whole number of at least 1, got {total_steps!r}")
    if not isinstance(criterion, Criterion):
        raise ConfigurationError(
            f"criterion must be an object such as ds.TaylorImportance(), got {criterion!r}"
        )
    traced = found.proof is not None
    if interval is None:
        interval = min(criterion.default_interval(total_steps, traced), total_steps)
    if not (isinstance(interval, int) and 1 <= interval <= total_steps):
        raise ConfigurationError(
            f"interval must be a whole number of steps from 1 to total_steps, {total_steps}, got {interval!r}"
        )
    if budget is not None and not criterion.keeps_budgets:
        raise ConfigurationError(
            f"{type(criterion).__name__} does not keep budgets: leave budget out, or use TaylorImportance"
        )
    rules = {}
    for name, one in by_name(rule or Rule(), found.widths, Rule(), "rule").items():
        width = found.widths[name]
        if isinstance(width, Depth):
            rules[name] = _rule_of(width, one, isinstance(rule, Mapping), criterion, total_steps, interval)
            continue
        complete = one.filled(criterion.default_rule)
        if complete.max_units is None:  # then the size that the model came with is the largest
            size, several = found.widths[name].size, max(1, multiple_of[name])
            largest = max(size // several * several, 1)
            complete = replace(complete, max_units=largest, p_add=0.0, p_spontaneous=0.0)
        criterion.check_rule(complete, total_steps, name)
        rules[name] = complete.timed(total_steps, interval)
    multiply_adds = MultiplyAdds(found) if budget is not None and budget.flops is not None else None
    run = optimizers, total_steps, interval, rules, np.random.default_rng(seed), traced, found.model, called
    return Training(*run, budget, multiply_adds, processes=processes, multiple_of=multiple_of)


def optimizers_of(given: Optimizer | Sequence[Optimizer]) -> list[Optimizer]:
    """The optimizers themselves: those that `Accelerator.prepare` returns are wrapped, and have no hooks."""
    found = [given] if isinstance(given, Optimizer) else [*given]
    for place, each in enumerate(found):
        within = getattr(each, "optimizer", None)
        if isinstance(within, Optimizer) and not hasattr(each, "_optimizer_step_pre_hooks"):
            found[place] = within
    return found


def multiples(option: int | Mapping[str, int], widths: Mapping[str, Width]) -> dict[str, int]:
    """Of what the size of each width is a multiple; depths are of any size."""
    found = by_name(option, widths, 1, "multiple_of")
    return {name: 1 if isinstance(width, Depth) else found[name] for name, width in widths.items()}


def training_after(training: Training, followed: Mapping[str, Followed], found: FoundWidths) -> Training:
    """The run after blocks have come or gone: what is new has the rules of what it was copied from."""
    rules = {name: training.rules[each.name] for name, each in followed.items()}
    multiply_adds = None if training.multiply_adds is None else MultiplyAdds(found)
    multiple_of = {name: training.multiple_of.get(each.name, 1) for name, each in followed.items()}
    return replace(training, rules=rules, multiply_adds=multiply_adds, multiple_of=multiple_of)


def _rule_of(
    depth: Depth, rule: Rule, by_name: bool, criterion: Criterion, total_steps: int, interval: int
) -> Rule:
    """The rule of a depth, which is asked for removals alone; one for all widths gives only the threshold."""
    own = rule if by_name else Rule(threshold=rule.threshold)
    complete = replace(own.filled(criterion.default_rule), p_add=0.0, p_spontaneous=0.0)
    if complete.max_units is None:
        complete = replace(complete, max_units=depth.stack.most)
    criterion.check_rule(complete, total_steps, depth.name)
    return complete.timed(total_steps, interval)
