"""The three revisions of the paper, constant by constant.

Thomas Miconi, "Neural networks with differentiable structure", arXiv:1606.06216 (2016). The revisions
differ in salience, price and optimizer, and in nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from diffstruct.criteria.importance import LARGEST_CONDITIONAL
from diffstruct.criteria.l1 import L1Price, UnitPrice
from diffstruct.errors import ConfigurationError
from diffstruct.nn import Multiplier
from diffstruct.paper.network import CharRNN, DefectiveMultiplier
from diffstruct.paper.rmsprop import ClippedRMSprop
from diffstruct.paper.seeds import split_seed
from diffstruct.paper.tasks import SEQUENCE
from diffstruct.rule.rule import Rule
from diffstruct.structure.structure import EARNING_RULE, Structure

GRADIENT_LIMIT = 5.0
"""Revisions 1 and 2 clip every entry of a gradient to plus or minus this."""

LARGEST_NORM = 5.0
"""Where units are judged by what they earn, the whole gradient is shortened to this norm."""


@dataclass(frozen=True)
class Revision:
    """What one revision of the paper fixes.

    Args:
        number: 1, 2 or 3; None for diffstruct's own way.
        salience: what a unit is judged by.
        price: what it pays.
        rule: when units come and go.
        smoothing: decay of the moving average of the loss that is reported.
        cycles: updates of a run.
    """

    number: int | None
    salience: Literal["earnings", "multiplier", "outgoing"]
    price: UnitPrice | L1Price
    rule: Rule
    smoothing: float
    cycles: int


# The paper's program adds 3e-5 * sign(m) at each of the sequence's steps.
_MULTIPLIER_PRICE = L1Price(SEQUENCE * 3e-5, how="gradient", floor=0.025)
_MULTIPLIER_RULE = Rule(
    threshold=0.05, reserve=1, p_add=0.05, p_delete=0.25, p_spontaneous=1e-4, max_units=99
)
REVISIONS = {
    1: Revision(1, "multiplier", _MULTIPLIER_PRICE, _MULTIPLIER_RULE, 0.999, 300_000),
    2: Revision(2, "multiplier", _MULTIPLIER_PRICE, _MULTIPLIER_RULE, 0.999, 300_000),
    3: Revision(
        3,
        "outgoing",
        L1Price(1e-4, how="sign"),
        Rule(threshold=0.05, reserve=1, p_add=0.01, p_delete=0.05, p_spontaneous=1e-4, max_units=99),
        0.99,
        100_000,
    ),
}
OWN = Revision(
    None, "earnings", UnitPrice(), replace(EARNING_RULE, max_units=LARGEST_CONDITIONAL), 0.999, 100_000
)
"""No revision of the paper: units are judged by what they earn, and trained by Adam."""


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
    multiplier = None
    if fixed_units is None and revision.salience == "multiplier":
        multiplier = DefectiveMultiplier if revision.number == 1 else Multiplier
    generator = torch.Generator().manual_seed(weights_seed)
    model = CharRNN(symbols, fixed_units or start_units, generator, multiplier, dtype)
    optimizer = _optimizer(revision, model)
    structure = None
    if (
        multiplier is not None
        or revision.salience == "outgoing"
        or (revision.salience == "earnings" and fixed_units is None)
    ):
        rule = revision.rule
        if fixed_units is not None:
            most = max(fixed_units, rule.max_units)
            rule = replace(rule, p_add=0.0, p_delete=0.0, p_spontaneous=0.0, max_units=most)
        structure = Structure(
            model,
            optimizer,
            rule=rule,
            salience=revision.salience,
            price=revision.price,
            start=None,
            updates=revision.cycles,
            predictions=SEQUENCE,
            reduction="sum",
            every=1,
            seed=structure_seed,
        )
    if revision.number in (1, 2):
        # After the structure's own hook, so that the price is clipped along, as in the paper's program.
        optimizer.register_step_pre_hook(_clip_gradients)
    elif revision.salience == "earnings":
        optimizer.register_step_pre_hook(_shorten_gradient)
    return Network(model, optimizer, structure)


def _optimizer(revision: Revision, model: CharRNN) -> Optimizer:
    """The revision's optimizer, over all parameters of `model` that are trained."""
    if revision.number in (1, 2):
        trained = [p for p in model.parameters() if p.requires_grad]
        # The program divides by sqrt(sum of squares + 1e-8). PyTorch adds its eps outside the root, but
        # accumulators that begin at 1e-8 come to the same, for new units as well.
        return torch.optim.Adagrad(trained, lr=0.1, initial_accumulator_value=1e-8, eps=0.0)
    if revision.salience == "earnings":
        trained = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.Adam(trained, lr=1e-3, betas=(0.9, 0.99))
    heard = [model.rnn.weight_ih_l0, model.rnn.bias_ih_l0]
    spoken = [model.rnn.weight_hh_l0, model.readout.weight, model.readout.bias]
    return ClippedRMSprop(
        [{"params": heard, "initial": 0.01}, {"params": spoken, "initial": 0.0}],
        lr=0.01,
        decay=0.99,
        limit=0.01,
        newborn=0.01,
    )


def _clip_gradients(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Clip every entry of every gradient."""
    gradients = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
    torch._foreach_clamp_max_(gradients, GRADIENT_LIMIT)
    torch._foreach_clamp_min_(gradients, -GRADIENT_LIMIT)


def _shorten_gradient(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Shorten the whole gradient to the largest norm."""
    trained = [p for g in optimizer.param_groups for p in g["params"]]
    torch.nn.utils.clip_grad_norm_(trained, LARGEST_NORM)
