"""What each unit earns, in nats, and what it pays for that. Pure; arrays in, arrays out.

Let `G_i` be the derivative of the loss with respect to a factor on all that unit i says. It needs no factor:
`G_i = sum(w * dL/dw)` over the unit's outgoing weights. Near a minimum of a log-likelihood the covariance of
such derivatives is the curvature (Fisher information): with `F = n E[G G^T]`, where the loss is the
mean over n predictions and E a moving average, it is `F - n E[G] E[G]^T`.

- alone: silencing unit i, a factor of 0 for one of 1, costs `S_i = (F_ii - n E[G_i]^2) / 2 - E[G_i]` nats per
  prediction, two orders of Taylor's series (compare Molchanov et al. 2017 and 2019, who take either,
  and Theis et al. 2018). It does not change when weights are rescaled across the unit, nor with the
  optimizer. The first order counts where the loss still falls, and where the price holds down what the loss
  would raise;
- jointly: if the other units may rescale what they say in return, silencing i costs the minimum of
  `d^T F d / 2 + r |d_others|^2 / 2` over `d` with `d_i = -1`, `J_i = 1 / (2 [(F + r)^-1]_ii) - r / 2`
  (compare optimal brain surgeon, Hassibi and Stork 1992; here for units, and with a price `r` on what the
  others must change).

The compiled training loop is made from `observe`, `alone`, `eased` and `remainder`, so these keep to what
Numba knows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_CONDITIONAL = 256
"""Units up to which what others could take over is looked at: it takes time in the cube of the units. Of
wider ones only the diagonal of `F` is kept, `[n]`."""


def update_averages(fisher: Any, mean: Any, slopes: Any, predictions: float, ages: Any, rate: float) -> None:
    """Bring the moving averages `fisher` and `mean` up to date, in place.

    Args:
        fisher: `[n, n]` or `[n]`, of `n G_i G_j`; to a pair of units that has just
            met, all that it has seen counts alike.
        mean: `[n]`, of `G_i`.
        slopes: `[n]`, `G_i` of the update.
        predictions: that the loss is the mean of.
        ages: `[n]`, observations of each unit, with this one.
        rate: of the moving average.
    """
    mean += np.maximum(rate, 1.0 / ages) * (slopes - mean)
    if fisher.ndim == 1:
        fisher += np.maximum(rate, 1.0 / ages) * (predictions * slopes * slopes - fisher)
        return
    since = np.minimum(ages.reshape((len(ages), 1)), ages)
    fisher += np.maximum(rate, 1.0 / since) * (predictions * np.outer(slopes, slopes) - fisher)


def resize_averages(fisher: NDArray[np.float64], keep: NDArray[np.int64], add: int) -> NDArray[np.float64]:
    """`fisher` of the units that stay and of `add` new ones, of which nothing has been seen."""
    size = len(keep) + add
    if size > LARGEST_CONDITIONAL:
        return np.concatenate([diagonal(fisher)[keep], np.zeros(add)])
    square = np.diag(fisher[keep]) if fisher.ndim == 1 else fisher[np.ix_(keep, keep)]
    return np.pad(square, (0, add))


def diagonal(fisher: Any) -> Any:
    """Of `F`, `[n]`, however much of it is kept."""
    if fisher.ndim == 1:
        return fisher
    return np.diag(fisher)


def marginal(diagonal: Any, mean: Any, predictions: float) -> Any:
    """What each unit earns by itself, `[n]`, in nats per prediction; below 0 if it does harm.

    Args:
        diagonal: `[n]`, of `F`.
        mean: `[n]`, of `G_i`.
        predictions: that the loss is the mean of.
    """
    return 0.5 * (diagonal - predictions * mean * mean) - mean


def annealing(update: int, updates: int, ease: float) -> float:
    """How much of the price is due at an update: 1, and over the last `ease` of the run down to 0."""
    return min(1.0, max(0.0, (updates - update) / (ease * updates)))


def conditional(fisher: NDArray[np.float64], unit_price: float) -> NDArray[np.float64]:
    """What each unit earns that the others could not take over, `[n]`, in nats per prediction.

    Args:
        fisher: `[n, n]`, or `[n]`, where the others are taken to take over nothing.
        unit_price: in nats per prediction: another unit that must double or vanish costs as much.
    """
    if fisher.ndim == 1:
        return 0.5 * fisher
    ridge = 2 * unit_price
    inverse = np.linalg.inv(fisher + ridge * np.eye(len(fisher)))
    joint: NDArray[np.float64] = np.clip(
        0.5 / np.diagonal(inverse) - 0.5 * ridge, 0.0, 0.5 * diagonal(fisher)
    )
    return joint


def geometric_mean(
    fisher: NDArray[np.float64], mean: NDArray[np.float64], predictions: float, unit_price: float
) -> NDArray[np.float64]:
    """What the price sets against itself, `[n]`: the geometric mean of what units earn alone and jointly.

    Alone overrates units of which many say the same; jointly underrates them all at once.

    Args:
        fisher: `[n, n]` or `[n]`.
        mean: `[n]`, of `G_i`.
        predictions: that the loss is the mean of.
        unit_price: in nats per prediction.
    """
    own = np.maximum(marginal(diagonal(fisher), mean, predictions), 0.0)
    between: NDArray[np.float64] = np.sqrt(own * conditional(fisher, unit_price))
    return between


def decay_factors(
    earnings: Any, ages: Any, unit_price: float, strength: float, power: float, grace_period: int, rise: int
) -> Any:
    """The factors that what each unit says shrinks by in one decision, `[n]`, between 0 and 1.

    `1 - strength * ramp * (price / (earnings + price)) ** power`: who earns nothing pays in full, who earns
    much hardly pays. The ramp goes from 0 at the end of the unit's trial to 1 when it is `rise` older.

    Args:
        earnings: `[n]`, see `earned`.
        ages: `[n]`, in decisions.
        unit_price: in nats per prediction.
        strength: the learning rate times the price's, and what of it is due.
        power: how much sooner the price lets go of those who earn more than it.
        grace_period: in decisions.
        rise: in decisions.
    """
    ramp = np.minimum(np.maximum((ages - grace_period) / rise, 0.0), 1.0)
    return np.maximum(1.0 - strength * ramp * (unit_price / (earnings + unit_price)) ** power, 0.0)
