"""scikit-learn: a classifier and a regressor, perceptrons whose hidden widths are learned."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from diffstruct.integrations.estimator import Perceptron
from diffstruct.integrations.growing import cross_entropies, squares
from diffstruct.integrations.samples import standardise

try:
    from sklearn.base import ClassifierMixin, RegressorMixin
    from sklearn.utils.multiclass import check_classification_targets
except ImportError as error:
    raise ImportError("scikit-learn is not installed: pip install 'diffstruct[sklearn]'") from error


class GrowingClassifier(ClassifierMixin, Perceptron):
    """A perceptron for two classes or more, whose hidden widths are learned while it trains.

    Parameters are named as those of scikit-learn's `MLPClassifier` where they mean the same. Features are
    standardised inside, by what the first data are; those of two values are brought to a distance of 1.

    Args:
        hidden_layer_sizes: units of the hidden layers to begin with, and at most; a number for one layer.
        activation: "identity", "logistic", "tanh" or "relu".
        batch_size: samples in a step; "auto": 200, or all if there are fewer.
        learning_rate_init: of Adam.
        max_iter: passes over the data.
        price: the share of what was won that a unit must be worth, as of `TaylorImportance`: half of it for
            more units, twice for fewer. None: 0.3, of a regressor 0.03.
        budget: parameters that the network has at most in the end; None: what units are worth decides alone.
        random_state: a number for the same result each time, to the bit.
        verbose: whether to show a progress bar, with the loss and the units.

    Attributes:
        n_units_: units of each hidden layer.
        module_: the network, a `torch.nn.Sequential` that takes features as they are and returns logits.
        classes_: the classes, in the order of the outputs.
        loss_curve_: the mean loss of each pass.
        n_iter_: passes that were made.
        n_features_in_, feature_names_in_: as of all estimators.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from diffstruct.integrations.sklearn import GrowingClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> model = GrowingClassifier(random_state=0).fit(X, y)
        >>> model.n_units_[0] < 100, bool(model.score(X, y) > 0.9)
        (True, True)
    """

    _losses = staticmethod(cross_entropies)
    _price = 0.3

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Make one pass over data of which more will come; the first call must say all `classes`.

        The structure is learned over `max_iter` calls, if all have as many samples as the first, by which
        features are standardised. After that sizes stay as they are, and training goes on.
        """
        if classes is not None:
            classes = np.unique(classes)
        if not hasattr(self, "module_"):
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit")
            self.classes_ = classes
        elif classes is not None and not np.array_equal(classes, self.classes_):
            raise ValueError(f"classes are {classes}, but were {self.classes_} in the first call")
        return self._go_on(X, y, sample_weight)

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the classes: `[samples, classes]`."""
        return self._outputs(X).softmax(1).numpy()

    def predict(self, X: Any) -> Any:
        """The likeliest class of each sample: `[samples]`."""
        likeliest = self._outputs(X).argmax(1)
        return self.classes_[likeliest.numpy()]

    def _encoded(self, y: Any, first: bool) -> Any:
        check_classification_targets(y)
        if not hasattr(self, "classes_"):
            self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(f"y must have two classes at least, and has 1 class, {self.classes_}")
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"y has classes {unknown}, which are not among {self.classes_}")
        return np.searchsorted(self.classes_, y)

    def _ending(self, y: Any, weight: Any, dtype: torch.dtype) -> tuple[int, nn.Module]:
        return len(self.classes_), nn.Identity()

    def _target(self, y: Any) -> Tensor:
        return torch.from_numpy(y)


class GrowingRegressor(RegressorMixin, Perceptron):
    """A perceptron for one number or several, whose hidden widths are learned while it trains.

    It minimises the squared error. Parameters and attributes are those of `GrowingClassifier`. Targets are
    standardised, too: `module_` returns `[samples, outputs]` in their units, `loss_curve_` has mean squared
    errors over their variance.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> from diffstruct.integrations.sklearn import GrowingRegressor
        >>> X, y = load_diabetes(return_X_y=True)
        >>> GrowingRegressor(budget=200, random_state=0).fit(X, y).n_units_[0] <= 16
        True
    """

    _losses = staticmethod(squares)
    _price = 0.03
    _accepts: ClassVar[dict[str, bool]] = {"multi_output": True, "y_numeric": True}

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Make one pass over data of which more will come; see `GrowingClassifier.partial_fit`."""
        return self._go_on(X, y, sample_weight)

    def predict(self, X: Any) -> Any:
        """What the network expects: `[samples]` or `[samples, outputs]`, as the targets were."""
        found = self._outputs(X).numpy()
        return found[:, 0] if self._flat else found

    def _encoded(self, y: Any, first: bool) -> Any:
        columns = y[:, None] if y.ndim == 1 else y
        if first:
            self._flat = y.ndim == 1
        elif columns.shape[1] != len(self._end.mean):
            raise ValueError(f"y has {columns.shape[1]} outputs, but had {len(self._end.mean)} before")
        return columns

    def _ending(self, y: Any, weight: Any, dtype: torch.dtype) -> tuple[int, nn.Module]:
        self._end = standardise(y, weight, dtype, back=True)
        return len(self._end.mean), self._end

    def _target(self, y: Any) -> Tensor:
        return self._end.undo(torch.from_numpy(y))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
