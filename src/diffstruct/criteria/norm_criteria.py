"""Criteria whose importance is a norm of weights, with an L1 price on these weights: the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from diffstruct.criteria import norms
from diffstruct.criteria.criterion import Criterion, Training
from diffstruct.criteria.initialization import AtThreshold, SmallRandom
from diffstruct.criteria.l1 import L1Price
from diffstruct.criteria.parametrization import Parametrized, cannot_multiply, parametrize_readers
from diffstruct.errors import ConfigurationError
from diffstruct.rule import Rule, check_finite
from diffstruct.width import READERS, Role, Width


@dataclass
class _PricedNorm(Criterion):
    """An L1 norm as importance, and an L1 price on the entries that it is the norm of."""

    roles: ClassVar[tuple[Role, ...]]

    price: L1Price = field(default_factory=lambda: L1Price(1e-4))

    @property
    def acts_on_gradients(self) -> bool:  # type: ignore[override]
        """Whether the price is paid by gradient."""
        return self.price.how == "gradient"

    def check_rule(self, rule: Rule, total_steps: int, name: str) -> None:
        """Refuse a threshold that no unit could fall below.

        Raises:
            ConfigurationError: it is not above the price's floor.
        """
        floor, threshold = self.price.floor, rule.threshold
        if floor is not None and threshold is not None and floor >= threshold:
            raise ConfigurationError(
                f"threshold must be above the floor of the price, {floor}, below which no "
                f"importance falls, got {threshold} for width {name!r}"
            )

    def attach(self, widths: Mapping[str, Width], training: Training) -> Mapping[str, Width]:
        """See `Criterion.attach`."""
        self.widths = super().attach(widths, training)
        return self.widths

    def follow(
        self, widths: Mapping[str, Width], training: Training, origin: Mapping[str, str | None]
    ) -> None:
        """See `Criterion.follow`."""
        super().follow(widths, training, origin)
        self.widths = widths

    def before_step(self, optimizer: Optimizer) -> None:
        """Add the price to the gradients, where it is paid so."""
        mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
        scale: Tensor | None = getattr(optimizer, "grad_scale", None)  # of a GradScaler, still in gradients
        price = self.price
        if scale is not None and self.acts_on_gradients:
            price = replace(price, strength=price.strength * scale.item())
        for tensor, which in norms.priced(self.widths.values(), self.roles):
            if id(tensor) in mine:
                price.before_step(tensor, which)

    def after_step(self, step: int, ages: Mapping[str, NDArray[np.int64]]) -> None:
        """Take the price of `interval` steps off the weights."""
        for width in self.widths.values():  # before any weight changes
            check_finite(self.importance(width).double().cpu().numpy())
        late = replace(self.price, strength=self.price.strength * self.training.interval)
        for tensor, which in norms.priced(self.widths.values(), self.roles):
            late.after_step(tensor, which)

    def describe(self) -> str:
        """The criterion and its price."""
        return f"{type(self).__name__}, L1 price {self.price.strength:g} a step"


@dataclass
class OutgoingNorm(_PricedNorm):
    """Judge a unit by the L1 norm of its outgoing weights, with an L1 price on them (paper: revision 3).

    Args:
        price: on the outgoing weights, recurrent ones included.

    Example:
        >>> import torch
        >>> import diffstruct as ds
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> structure = ds.Structure(
        ...     model, optimizer, example_inputs=(torch.ones(2, 3),), total_steps=100,
        ...     criterion=ds.OutgoingNorm(ds.L1Price(1e-3)),
        ... )
    """

    roles: ClassVar[tuple[Role, ...]] = READERS
    unit_of_importance: ClassVar[str] = "L1 norm of the outgoing weights"  # type: ignore[misc]
    initialization = AtThreshold()

    def importance(self, width: Width) -> Tensor:
        """The norm, `[n]`; see `norms.outgoing`."""
        return norms.outgoing(width)


@dataclass
class Multipliers(_PricedNorm):
    """Judge a unit by a trainable factor on its output, with an L1 price on it (paper: revisions 1 and 2).

    The factor is a `ds.nn.Multiplier` of the model's; in a model whose widths are found by tracing, it is
    otherwise a parametrization of the weights that read the unit, until `finish`.

    Args:
        price: on the factors.

    Example:
        >>> import torch
        >>> import diffstruct as ds
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> structure = ds.Structure(
        ...     model, optimizer, example_inputs=(torch.ones(2, 3),), total_steps=100,
        ...     criterion=ds.Multipliers(ds.L1Price(1e-3)),
        ... )
    """

    roles: ClassVar[tuple[Role, ...]] = (Role.MULTIPLIER,)
    unit_of_importance: ClassVar[str] = "absolute value of the multiplier"  # type: ignore[misc]
    initialization = SmallRandom()

    def refusal(self, width: Width, training: Training) -> str | None:
        """A width without multipliers, in front of whose readers none can be put."""
        if any(width.having(Role.MULTIPLIER)):
            return None
        if training.traced:
            return cannot_multiply(width)
        return (
            "has no multiplier: put a ds.nn.Multiplier among its readers, or use criterion=ds.OutgoingNorm()"
        )

    def attach(self, widths: Mapping[str, Width], training: Training) -> Mapping[str, Width]:
        """Put multipliers where there are none."""
        self._added: Parametrized = parametrize_readers(widths, training.optimizers)
        return super().attach(self._added.widths, training)

    def importance(self, width: Width) -> Tensor:
        """The absolute value of the factors, `[n]`; see `norms.multiplier`."""
        return norms.multiplier(width)

    def detach(self) -> None:
        """Multiply the factors into the weights, which become plain parameters again, the same objects."""
        self._added.remove(self.training.optimizers, self.training.copies)
