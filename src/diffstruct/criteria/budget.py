"""A budget: what the finished model may cost, and the way there."""

from __future__ import annotations

from dataclasses import dataclass

from diffstruct.errors import ConfigurationError

BEGIN, END = 0.15, 0.75
"""The fractions of the run between which the cost goes from where it begins to the budget."""

USED = 0.98
"""The part of the budget below which nothing is taken away."""


@dataclass(frozen=True)
class Budget:
    """What the finished model may cost.

    Units that are not worth their price go as they do without a budget, but not below it; where that is not
    enough, the least important units go, so that the cost falls evenly to the budget in the first three
    quarters of the run. A budget above what the model costs at its own sizes leaves these alone.

    Args:
        parameters: of the whole model, those of sizes that are not learned included.

    Raises:
        ConfigurationError: it is no whole number above 0.

    Example:
        >>> import torch
        >>> import diffstruct as ds
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> x = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
        >>> structure = ds.Structure(
        ...     model, optimizer, example_inputs=(x,), total_steps=300, budget=ds.Budget(parameters=100)
        ... )
        >>> for _ in range(300):
        ...     optimizer.zero_grad()
        ...     torch.nn.functional.cross_entropy(model(x), (x[:, 0] > x[:, 1]).long()).backward()
        ...     optimizer.step()
        ...     events = structure.step()
        >>> sum(parameter.numel() for parameter in structure.finish().parameters())
        98
    """

    parameters: int

    def __post_init__(self) -> None:
        number = self.parameters
        if not (isinstance(number, int) and not isinstance(number, bool) and number > 0):
            raise ConfigurationError(f"parameters must be a whole number above 0, got {self.parameters!r}")


class BudgetPath:
    """What the model may cost at each step, on its way to a budget.

    Args:
        budget: what the model may cost at the end.
        begin: what it costs at first.
        total_steps: of the run.
    """

    def __init__(self, budget: float, begin: float, total_steps: int) -> None:
        self.budget, self._begin, self._total = budget, begin, total_steps

    def allowed(self, step: int) -> float:
        """What the model may cost after so many steps: by the same factor less in each of them."""
        done = min(1.0, max(0.0, (step / self._total - BEGIN) / (END - BEGIN)))
        factor = min(1.0, self.budget / self._begin)
        return float(self._begin * factor**done)

    def room(self, cost: float, unit: float) -> int:
        """How many units that cost `unit` may go, at most, lest the budget is left unused."""
        return max(0, int((cost - USED * self.budget) / max(unit, 1e-300)))
