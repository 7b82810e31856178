"""What the estimators for scikit-learn share: parameters, the checks of data, and training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, Self

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn

from diffstruct.integrations.growing import Growing, Losses
from diffstruct.integrations.perceptron import check_parameters
from diffstruct.integrations.samples import FLOATS, check_weights, distinct, standardise

try:
    from sklearn.base import BaseEstimator
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("scikit-learn is not installed: pip install 'diffstruct[sklearn]'") from error


class Perceptron(BaseEstimator):
    """A perceptron whose hidden widths are learned; see `GrowingClassifier` and `GrowingRegressor`."""

    _accepts: ClassVar[dict[str, bool]] = {}
    _price: ClassVar[float]
    _losses: Losses

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str = "relu",
        *,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        price: float | None = None,
        budget: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.hidden_layer_sizes, self.activation = hidden_layer_sizes, activation
        self.batch_size, self.learning_rate_init, self.max_iter = batch_size, learning_rate_init, max_iter
        self.price, self.budget = price, budget
        self.random_state, self.verbose = random_state, verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for `max_iter` passes over the data, and learn the widths meanwhile.

        Args:
            X: `[samples, features]`, dense; computed with in float32 if it is that, else in float64.
            y: `[samples]`; of a regressor also `[samples, outputs]`.
            sample_weight: `[samples]`, at least 0; a weight of 2 is the sample twice. None: all 1.

        Returns:
            The estimator itself.

        Raises:
            ValueError: data or parameters that cannot be.
        """
        self.__dict__.pop("classes_", None)  # what was known of other targets
        data = self._begin(X, y, sample_weight)
        bar = Progress(disable=not self.verbose)
        task = bar.add_task("", total=self.max_iter)
        with bar if self.verbose else nullcontext():  # older ones of rich end a disabled one with a line
            for _ in range(self.max_iter):
                self._pass(*data)
                told = f"loss {self.loss_curve_[-1]:.4g}, units {', '.join(map(str, self.n_units_))}"
                bar.update(task, advance=1, description=told)
        return self

    def _go_on(self, X: Any, y: Any, sample_weight: Any) -> Self:
        """One pass over data of which there was some before, or not."""
        if hasattr(self, "module_"):
            self._pass(*self._ready(*self._checked(X, y, sample_weight, first=False)))
        else:
            self._pass(*self._begin(X, y, sample_weight))
        return self

    def _begin(self, X: Any, y: Any, sample_weight: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Make all anew, for data that is seen for the first time; return that, ready for training."""
        hidden, most = check_parameters(
            self.hidden_layer_sizes, self.activation, self.batch_size, self.max_iter
        )
        x, y, weight = self._checked(X, y, sample_weight, first=True)
        dtype = torch.from_numpy(x[:0]).dtype
        outputs, end = self._ending(y, weight, dtype)
        growing = Growing(
            [x.shape[1], *hidden, outputs],
            self.activation,
            dtype,
            self._losses,
            rate=self.learning_rate_init,
            passes=int(self.max_iter),
            batch=min(most, len(x)),
            samples=len(x),
            price=self._price if self.price is None else self.price,
            budget=self.budget,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )
        self._growing, self._into = growing, standardise(x, weight, dtype)
        self.module_ = nn.Sequential(self._into, growing.network, end).eval()
        self.loss_curve_: list[float] = []
        self.n_iter_, self.n_units_ = 0, growing.sizes
        return self._ready(x, y, weight)

    def _checked(self, X: Any, y: Any, sample_weight: Any, first: bool) -> Any:
        """Data as scikit-learn wants it checked, each kind of sample once, and how much they weigh."""
        x, y = validate_data(self, X, y, reset=first, dtype=FLOATS, **self._accepts)
        weight = check_weights(sample_weight, x)
        some = weight > 0
        x, y, weight = x[some], self._encoded(y[some], first), weight[some]
        kinds, weight = distinct(x, y, weight)
        return x[kinds], y[kinds], weight

    def _ready(self, x: Any, y: Any, weight: Any) -> tuple[Tensor, Tensor, Tensor]:
        scaled: Tensor = self._into(torch.from_numpy(x))
        return scaled, self._target(y), torch.from_numpy(weight / weight.mean()).to(scaled)

    def _pass(self, x: Tensor, target: Tensor, weight: Tensor) -> None:
        self.loss_curve_.append(self._growing.train(x, target, weight))
        self.n_iter_, self.n_units_ = self.n_iter_ + 1, self._growing.sizes

    @torch.no_grad()
    def _outputs(self, X: Any) -> Tensor:
        """What the module makes of samples: `[samples, outputs]`."""
        check_is_fitted(self, "module_")
        x = validate_data(self, X, reset=False, dtype=FLOATS)
        # A copy, in memory of its own: views may be reversed, which PyTorch has not, or read-only.
        found: Tensor = self.module_(torch.from_numpy(np.array(x)))
        return found

    @abstractmethod
    def _encoded(self, y: Any, first: bool) -> Any:
        """Targets as numbers: `[samples]`, or `[samples, outputs]`."""

    @abstractmethod
    def _ending(self, y: Any, weight: Any, dtype: torch.dtype) -> tuple[int, nn.Module]:
        """How many outputs the network has, and what is to follow it."""

    @abstractmethod
    def _target(self, y: Any) -> Tensor:
        """Encoded targets as the loss takes them."""
