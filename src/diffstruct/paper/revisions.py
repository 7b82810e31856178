"""The three revisions of the paper, constant by constant, and diffstruct's own way beside them.

Thomas Miconi, "Neural networks with differentiable structure", arXiv:1606.06216 (2016). The revisions
differ in criterion, price and optimizer, and in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.optim import Optimizer

from diffstruct.criteria import Criterion, L1Price, Multipliers, OutgoingNorm, TaylorImportance
from diffstruct.criteria.importance import LARGEST_CONDITIONAL
from diffstruct.errors import ConfigurationError
from diffstruct.nn import Multiplier
from diffstruct.paper.network import CharRNN, DefectiveMultiplier
from diffstruct.paper.rmsprop import ClippedRMSprop
from diffstruct.paper.seeds import split_seed
from diffstruct.paper.tasks import SEQUENCE
from diffstruct.rule import Rule
from diffstruct.structure import Structure

GRADIENT_LIMIT = 5.0
"""Revisions 1 and 2 clip every entry of a gradient to plus or minus this."""

LARGEST_NORM = 5.0
"""diffstruct's own way clips the norm of the whole gradient to this."""


@dataclass(frozen=True)
class Revision:
    """What one revision of the paper fixes.

    Args:
        number: 1, 2 or 3; None for diffstruct's own way.
        criterion: what a unit is judged by, and its price.
        rule: when units are added and removed.
        optimizer: makes the optimizer of a network.
        clip: clips the gradients before a step of the optimizer; None for nothing.
        multiplier: the class of the multipliers on the hidden units of a network that learns its size.
        prices_fixed_sizes: whether the criterion acts on networks of a fixed size, too.
        smoothing: decay of the moving average of the loss that is reported.
        cycles: updates of a run.
    """

    number: int | None
    criterion: Criterion
    rule: Rule
    optimizer: Callable[[CharRNN], Optimizer]
    clip: Callable[[Optimizer, Any, Any], None] | None
    multiplier: type[Multiplier] | None
    prices_fixed_sizes: bool
    smoothing: float
    cycles: int


def _adagrad(model: CharRNN) -> Optimizer:
    # The program divides by sqrt(sum of squares + 1e-8). PyTorch adds its eps outside the root, but
    # accumulators that begin at 1e-8 come to the same, for new units as well.
    return torch.optim.Adagrad(_trained(model), lr=0.1, initial_accumulator_value=1e-8, eps=0.0)


def _rmsprop(model: CharRNN) -> Optimizer:
    incoming = [model.rnn.weight_ih_l0, model.rnn.bias_ih_l0]
    others = [model.rnn.weight_hh_l0, model.readout.weight, model.readout.bias]
    return ClippedRMSprop(
        [{"params": incoming, "initial": 0.01}, {"params": others, "initial": 0.0}],
        lr=0.01,
        decay=0.99,
        limit=0.01,
        new_unit=0.01,
    )


def _adam(model: CharRNN) -> Optimizer:
    return torch.optim.Adam(_trained(model), lr=1e-3, betas=(0.9, 0.99))


def _trained(model: CharRNN) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _clip_entries(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Clip every entry of every gradient."""
    gradients = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
    torch._foreach_clamp_max_(gradients, GRADIENT_LIMIT)
    torch._foreach_clamp_min_(gradients, -GRADIENT_LIMIT)


def _clip_norm(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Clip the norm of the whole gradient."""
    trained = [p for g in optimizer.param_groups for p in g["params"]]
    torch.nn.utils.clip_grad_norm_(trained, LARGEST_NORM)


_PAPER_RULE = Rule(
    threshold=0.05,
    reserve=1,
    p_add=0.05,
    p_delete=0.25,
    p_spontaneous=1e-4,
    min_units=1,
    max_units=99,
    redraw_after=0,
    min_reserve=1,
    grace_period=0,
)
# The paper's program adds 3e-5 * sign(m) at each of the sequence's steps.
_REVISION_2 = Revision(
    number=2,
    criterion=Multipliers(L1Price(SEQUENCE * 3e-5, how="gradient", floor=0.025)),
    rule=_PAPER_RULE,
    optimizer=_adagrad,
    clip=_clip_entries,
    multiplier=Multiplier,
    prices_fixed_sizes=False,
    smoothing=0.999,
    cycles=300_000,
)
REVISIONS = {
    1: replace(_REVISION_2, number=1, multiplier=DefectiveMultiplier),
    2: _REVISION_2,
    3: Revision(
        number=3,
        criterion=OutgoingNorm(L1Price(1e-4, how="sign")),
        rule=replace(_PAPER_RULE, p_add=0.01, p_delete=0.05),
        optimizer=_rmsprop,
        clip=None,
        multiplier=None,
        prices_fixed_sizes=True,
        smoothing=0.99,
        cycles=100_000,
    ),
}
OWN = Revision(
    number=None,
    criterion=TaylorImportance(),
    rule=Rule(max_units=LARGEST_CONDITIONAL),
    optimizer=_adam,
    clip=_clip_norm,
    multiplier=None,
    prices_fixed_sizes=False,
    smoothing=0.999,
    cycles=100_000,
)
"""No revision of the paper: units are judged by the loss that they save, and trained by Adam."""


def get_revision(number: int | None) -> Revision:
    """The revision of that number; None for diffstruct's own way.

    Raises:
        ConfigurationError: there is none.
    """
    if number is None:
        return OWN
    if number not in REVISIONS:
        raise ConfigurationError(f"revision must be one of {[*REVISIONS]}, got {number!r}")
    return REVISIONS[number]


@dataclass(frozen=True)
class Network:
    """A network of the paper, with what trains it; see `build`."""

    model: CharRNN
    optimizer: Optimizer
    structure: Structure | None


def build(
    revision: Revision,
    symbols: int,
    seed: int,
    fixed_units: int | None = None,
    dtype: torch.dtype = torch.float32,
    start_units: int = 1,
) -> Network:
    """A network of one revision, before its first update.

    Args:
        revision: its constants.
        symbols: size of the alphabet.
        seed: of the initial weights, the rule and the new units.
        fixed_units: None to start from one unit and learn the width; else the size of a network without
            multipliers and rule. Revision 3 prices its weights even so.
        dtype: of all parameters.
        start_units: to start from, where the width is learned.

    Raises:
        ConfigurationError: a parameter that cannot work.
    """
    if fixed_units is not None and fixed_units < 1:
        raise ConfigurationError(f"fixed_units must be at least 1, got {fixed_units}")
    weights_seed, structure_seed = split_seed(seed)
    multiplier = revision.multiplier if fixed_units is None else None
    generator = torch.Generator().manual_seed(weights_seed)
    model = CharRNN(symbols, fixed_units or start_units, generator, multiplier, dtype)
    optimizer = revision.optimizer(model)
    structure = None
    if fixed_units is None or revision.prices_fixed_sizes:
        rule = revision.rule
        if fixed_units is not None:
            most = max(fixed_units, rule.max_units or 1)
            rule = replace(rule, p_add=0.0, p_delete=0.0, p_spontaneous=0.0, max_units=most)
        structure = Structure(
            model,
            optimizer,
            total_steps=revision.cycles,
            criterion=revision.criterion,
            rule=rule,
            seed=structure_seed,
        )
    if revision.clip is not None:
        # After the structure's own hook, so that the price is clipped along, as in the paper's program.
        optimizer.register_step_pre_hook(revision.clip)
    return Network(model, optimizer, structure)
