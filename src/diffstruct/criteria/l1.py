"""An L1 price on weights.

The functions are pure, and the only copy of each formula: the compiled training loop is made from them.
`soft_threshold` is the exact proximal step of an L1 price; `subgradient` and `sign_step` are what the paper
does (arXiv:1606.06216): a subgradient that joins the loss's gradient before the optimizer (revisions 1 and
2), and a step against the sign after it (revision 3), which oscillates around zero by its own size where the
proximal step comes to rest at zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffstruct.errors import ConfigurationError


def subgradient(weights: Tensor, strength: float) -> Tensor:
    """The subgradient of `strength * sum(abs(weights))`, shaped like `weights`; zero at zero."""
    return strength * torch.sign(weights)


def sign_step(weights: Tensor, strength: float) -> Tensor:
    """`w - strength * sign(w)`, the paper's revision 3."""
    return weights - strength * torch.sign(weights)


def at_least(weights: Tensor, floor: float) -> Tensor:
    """`weights`, clipped from below at `floor`."""
    return torch.clamp(weights, min=floor)


def soft_threshold(weights: Tensor, strength: float, out: Tensor | None = None) -> Tensor:
    """The proximal step `argmin_v (v - w)^2 / 2 + strength * |v|`, elementwise; written to `out` if given."""
    if out is None:
        return torch.nn.functional.softshrink(weights, strength)
    result: Tensor = torch.ops.aten.softshrink.out(weights, strength, out=out)
    return result


@dataclass(frozen=True)
class L1Price:
    """An L1 price on the tensors that an importance is the norm of.

    Args:
        strength: the price per step, in the unit of the weights for the two steps, and of the gradient
            for `how="gradient"`.
        how: `"proximal"`, the exact step after the optimizer's; `"sign"`, the paper's revision 3;
            `"gradient"`, added to the gradient before the optimizer's step, the paper's revisions 1 and 2.
        floor: entries are clipped from below at this value after each step; None for no floor.

    Raises:
        ConfigurationError: a parameter that cannot work.

    Example:
        >>> import torch
        >>> import diffstruct as ds
        >>> weights = torch.tensor([0.5, 0.05])
        >>> ds.L1Price(0.1).after_step(weights)
        >>> weights
        tensor([0.4000, 0.0000])
    """

    strength: float
    how: Literal["proximal", "sign", "gradient"] = "proximal"
    floor: float | None = None

    def __post_init__(self) -> None:
        if not (self.strength >= 0 and math.isfinite(self.strength)):
            raise ConfigurationError(f"strength must be a number of at least 0, got {self.strength!r}")
        if self.floor is not None and not math.isfinite(self.floor):
            raise ConfigurationError(f"floor must be None or a finite number, got {self.floor!r}")
        if self.how not in ("proximal", "sign", "gradient"):
            raise ConfigurationError(f"how must be 'proximal', 'sign' or 'gradient', got {self.how!r}")

    @torch.no_grad()
    def before_step(self, weights: Tensor, which: Tensor | None = None) -> None:
        """Add the price to the gradient of `weights`, where `how` is `"gradient"`.

        Args:
            weights: of any shape.
            which: bool, of a shape that broadcasts to theirs: the entries that are priced; None for all.
        """
        if self.how == "gradient" and weights.grad is not None:
            price = subgradient(weights, self.strength)
            weights.grad.add_(price if which is None else price * which)

    @torch.no_grad()
    def after_step(self, weights: Tensor, which: Tensor | None = None) -> None:
        """Shrink `weights`, unless `how` is `"gradient"`, and clip them at the floor."""
        new = weights
        if self.how == "proximal":
            # In place where that is all: large weights are read and written once.
            alone = which is None and self.floor is None
            new = soft_threshold(weights, self.strength, out=weights if alone else None)
        elif self.how == "sign":
            new = sign_step(weights, self.strength)
        if self.floor is not None:
            new = at_least(new, self.floor)
        if new is not weights:
            weights.copy_(new if which is None else torch.where(which, new, weights))
