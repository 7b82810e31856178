"""A budget: what the finished model may cost, and the way there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral

from diffstruct.errors import ConfigurationError
from diffstruct.width.cost import Cost

BEGIN, END = 0.15, 0.75
"""The fractions of the run between which the cost goes from where it begins to the budget."""

USED = 0.98
"""The part of the budget below which nothing is taken away."""

SHARPNESS = 8
"""Of several budgets, one that is half as tight as another has less than a hundredth of its part in what
units cost."""


@dataclass(frozen=True)
class Budget:
    """What the finished model may cost.

    Units that are not worth their price go as they do without a budget, but not below it; where that is not
    enough, the least important units go, so that the cost falls evenly to the budget in the first three
    quarters of the run. A budget above what the model costs at its own sizes leaves these alone.

    Of several budgets all are met. Units cost what they take of the tightest one, unless the criterion has a
    cost of its own.

    Args:
        parameters: of the whole model, those of sizes that are not learned included.
        flops: multiply-adds of a forward pass for one example, a multiplication and the addition that goes
            with it counting as one; see `MultiplyAdds`. Counters that say two have twice as many.

    Raises:
        ConfigurationError: neither is given, or one is no whole number above 0.

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

    parameters: int | None = None
    flops: int | None = None

    def __post_init__(self) -> None:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        if all(number is None for number in given.values()):
            raise ConfigurationError(f"a budget needs a number: give {' or '.join(given)}, or both")
        for name, number in given.items():
            whole = isinstance(number, Integral) and not isinstance(number, bool)  # NumPy's, too
            if number is not None and not (whole and number > 0):
                raise ConfigurationError(f"{name} must be a whole number above 0, got {number!r}")


class BudgetPath:
    """What the model may cost at each step, on its way to a budget.

    Costs are told in parts of the budget, of the tightest where there are several.

    Args:
        budget: what the model may cost at the end.
        costs: what a model of given sizes costs, by the names that the budget has for it.
        sizes: of the widths, where the run begins.
        total_steps: of the run.
    """

    def __init__(
        self, budget: Budget, costs: Mapping[str, Cost], sizes: Mapping[str, int], total_steps: int
    ) -> None:
        given = {field.name: getattr(budget, field.name) for field in fields(budget)}
        self._limits = [(name, most, costs[name]) for name, most in given.items() if most is not None]
        self._total = total_steps
        self.begin = max(1.0, self.spent(sizes))

    def follow(self, costs: Mapping[str, Cost]) -> None:
        """Blocks have come or gone: the same path, with what a model of the widths that there are costs."""
        self._limits = [(name, most, costs[name]) for name, most, _ in self._limits]

    def spent(self, sizes: Mapping[str, int]) -> float:
        """The part of the budget that a model of these sizes takes."""
        return max(self._parts(sizes))

    def price(self, sizes: Mapping[str, int]) -> float:
        """The same as what units cost: of budgets that are about as tight, all count.

        The larger part alone would say that a unit is free which takes much of the other.
        """
        parts = self._parts(sizes)
        largest = max(parts)
        if largest == 0:  # of a width without units, through which all multiply-adds go
            return 0.0
        return float(largest * sum((part / largest) ** SHARPNESS for part in parts) ** (1 / SHARPNESS))

    def allowed(self, step: int) -> float:
        """What the model may take after so many steps: by the same factor less in each of them."""
        done = min(1.0, max(0.0, (step / self._total - BEGIN) / (END - BEGIN)))
        return float(self.begin ** (1.0 - done))

    def room(self, sizes: Mapping[str, int], name: str) -> int:
        """How many units of a width may go, at most, lest the budget is left unused."""
        spent = self.spent(sizes)
        unit = spent - self.spent({**sizes, name: sizes[name] - 1})
        return max(0, int((spent - USED) / max(unit, 1e-15)))

    def missed(self, sizes: Mapping[str, int]) -> list[str]:
        """What a model of these sizes costs where that is more than the budget, a part of a sentence each."""
        return [
            f"{_SAID[name].format(cost(sizes))}, more than the budget of {most:,}"
            for name, most, cost in self._limits
            if cost(sizes) > most
        ]

    def _parts(self, sizes: Mapping[str, int]) -> list[float]:
        return [cost(sizes) / most for _, most, cost in self._limits]


_SAID = {
    "parameters": "the finished model has {:,.0f} parameters",
    "flops": "the finished model takes {:,.0f} multiply-adds for an example",
}
