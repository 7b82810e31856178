"""Importance in nats. Pure; arrays in, arrays out.

Let `G_i` be the derivative of the loss with respect to a factor on all outgoing weights of unit i. It needs
no factor in the model: `G_i = sum(w * dL/dw)` over these weights. Near a minimum of a log-likelihood the
covariance of such derivatives is the curvature (Fisher information): with `F = n E[G G^T]`, where the loss is
the mean over n predictions and E a moving average, it is `C = F - n E[G] E[G]^T`.

- marginal: silencing unit i alone, a factor of 0 in place of 1, costs `S_i = C_ii / 2 - E[G_i]` nats per
  prediction, two orders of Taylor's series (compare Molchanov et al. 2017 and 2019, who take either, and
  Theis et al. 2018). It does not change when weights are rescaled across the unit, nor with the optimizer.
  The first order counts where the loss still falls, and where the decay holds outgoing weights below what the
  loss asks for;
- conditional: if the factors of the other units may adapt, silencing unit i costs the minimum of
  `d^T C d / 2 + r |d_others|^2 / 2` over `d` with `d_i = -1`, `J_i = 1 / (2 [(C + r)^-1]_ii) - r / 2`
  (compare optimal brain surgeon, Hassibi and Stork 1992; here for units, and with a price `r` on what the
  others must change).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LARGEST_CONDITIONAL = 256
"""The largest width whose conditional importance is computed: it takes time in the cube of the units. Of
wider ones only the diagonal of `F` is kept, `[n]`."""

ROUNDING = 1e-12
"""Of the largest entry of a matrix: less than that on its diagonal may be lost when it is inverted."""


def update_averages(fisher: Any, mean: Any, slopes: Any, predictions: float, ages: Any, rate: float) -> None:
    """Bring the moving averages `fisher` and `mean` up to date, in place.

    Args:
        fisher: `[n, n]` or `[n]`, of `n G_i G_j`; for a pair of units that has not been together for long,
            all observations of the pair count alike.
        mean: `[n]`, of `G_i`.
        slopes: `[n]`, `G_i` of this step.
        predictions: the loss is the mean over so many predictions.
        ages: `[n]`, observations of each unit, this one included.
        rate: of the moving average.
    """
    mean += np.maximum(rate, 1.0 / ages) * (slopes - mean)
    if fisher.ndim == 1:
        fisher += np.maximum(rate, 1.0 / ages) * (predictions * slopes * slopes - fisher)
        return
    young = np.flatnonzero(rate * ages < 1)
    rows, since = fisher[young], np.minimum(ages[young, None], ages)
    rows += np.maximum(rate, 1.0 / since) * (predictions * np.outer(slopes[young], slopes) - rows)
    if len(young) < len(ages):  # the others have been together for long: the same in one pass
        both = torch.from_numpy(slopes)
        torch.from_numpy(fisher).addr_(both, both, beta=1 - rate, alpha=rate * predictions)
    fisher[young], fisher[:, young] = rows, rows.T


def resize_averages(fisher: NDArray[np.float64], keep: NDArray[np.int64], add: int) -> NDArray[np.float64]:
    """`fisher` of the units that stay and of `add` new ones, which have not been observed yet."""
    size = len(keep) + add
    if size > LARGEST_CONDITIONAL:
        return np.concatenate([diagonal(fisher)[keep], np.zeros(add)])
    square = np.diag(fisher[keep]) if fisher.ndim == 1 else fisher[np.ix_(keep, keep)]
    return np.pad(square, (0, add))


def averages_shape(size: int) -> tuple[int, ...]:
    """The shape of `fisher` for so many units: of many, only the diagonal is kept."""
    return (size,) if size > LARGEST_CONDITIONAL else (size, size)


def diagonal(fisher: Any) -> Any:
    """The diagonal of `F`, `[n]`, whether `F` is kept whole or not."""
    if fisher.ndim == 1:
        return fisher
    return np.diag(fisher)


def centred(fisher: Any, mean: Any, predictions: float) -> Any:
    """`F - n E[G] E[G]^T`, the curvature: `[n, n]`, or its diagonal `[n]`."""
    if fisher.ndim == 1:
        return np.maximum(fisher - predictions * mean * mean, 0.0)
    return fisher - predictions * np.outer(mean, mean)


def marginal(curvature: Any, mean: Any, first_order: bool = True) -> Any:
    """The loss of silencing each unit alone, `[n]`, in nats per prediction, at least 0.

    The first order counts where it speaks for a unit: the loss would raise what the unit says. Where it
    speaks against one, the optimizer will see to that.

    Args:
        curvature: of `centred`.
        mean: `[n]`, of `G_i`.
        first_order: False for the curvature by itself, `C_ii / 2`.
    """
    second = 0.5 * np.maximum(diagonal(curvature), 0.0)
    return second + np.maximum(-mean, 0.0) if first_order else second


def conditional(fisher: NDArray[np.float64], price: float) -> NDArray[np.float64]:
    """The loss of silencing each unit that the others could not take over, `[n]`, in nats per prediction.

    Args:
        fisher: `[n, n]`; or `[n]`, for which the others are assumed to take over nothing.
        price: in nats per prediction, the cost of doubling or silencing another unit in return.
    """
    if fisher.ndim == 1:
        return 0.5 * fisher
    ridge = _ridge(fisher, price)
    # By PyTorch, since NumPy's BLAS ignores torch.set_num_threads: at 128 units that was a hundred times
    # as long, on threads that the training competes with.
    matrix, root = _with_ridge(fisher, ridge)
    inverse = (torch.linalg.inv(matrix) if root is None else torch.cholesky_inverse(root)).diagonal().numpy()
    bounded: NDArray[np.float64] = np.clip(0.5 / inverse - 0.5 * ridge, 0.0, 0.5 * diagonal(fisher))
    return bounded


def _ridge(curvature: NDArray[np.float64], price: float) -> float:
    """What the price adds to the diagonal: more than rounding, also where next to nothing has been won."""
    return max(2 * price, ROUNDING * float(diagonal(curvature).max()))


def _with_ridge(curvature: NDArray[np.float64], ridge: float) -> tuple[Tensor, Tensor | None]:
    """`C + r`, and its Cholesky factor, by which the inverse takes half the time.

    There is no factor where averages over the different ages of units disagree so much that `C + r` is not
    positive definite.
    """
    matrix = torch.tensor(curvature)
    matrix.diagonal().add_(ridge)
    root, failed = torch.linalg.cholesky_ex(matrix)
    return matrix, None if failed else root


def geometric_mean(
    curvature: NDArray[np.float64], mean: NDArray[np.float64], price: float, first_order: bool = True
) -> NDArray[np.float64]:
    """The geometric mean of marginal and conditional importance, `[n]`.

    Marginal importance overrates units that have many duplicates; conditional importance underrates all of
    the duplicates at once.

    Args:
        curvature: of `centred`.
        mean: `[n]`, of `G_i`.
        price: of a unit, in nats per prediction.
        first_order: as in `marginal`.
    """
    between: NDArray[np.float64] = np.sqrt(
        marginal(curvature, mean, first_order) * np.maximum(conditional(curvature, price), 0.0)
    )
    return between


def takeover(curvature: NDArray[np.float64], units: NDArray[np.int64], price: float) -> NDArray[np.float64]:
    """What the factors of the other units should change by when `units` are silenced, `[n]`; 0 for these.

    The `d` of `conditional` for several units at once, kept between -0.5 and 1.

    Args:
        curvature: `[n, n]` or `[n]`, for which the others take over nothing.
        units: indices of those that go.
        price: as in `conditional`.
    """
    change = np.zeros(len(curvature))
    stay = np.ones(len(curvature), np.bool_)
    stay[units] = False
    others = np.flatnonzero(stay)
    if curvature.ndim == 2 and len(others):
        matrix, root = _with_ridge(curvature[np.ix_(others, others)], _ridge(curvature, price))
        wanted = torch.from_numpy(curvature[np.ix_(others, units)].sum(1, keepdims=True))
        solved = torch.linalg.solve(matrix, wanted) if root is None else torch.cholesky_solve(wanted, root)
        change[others] = solved[:, 0].clamp_(-0.5, 1.0).numpy()
    return change
