"""What a loss is, told by its gradient at the model's outputs. Pure.

The loss of a training step reaches us only as a gradient. Its scale there means nothing: a mean, a sum, a
factor or a `GradScaler` change it, and with it the square of every slope. But the gradient at the outputs
`y` gives most losses away:

- cross-entropy of a softmax: `dL/dy = s (softmax(y) - t)`, which sums to zero over the classes, with targets
  `t` that are a class each;
- of a sigmoid: `dL/dy = s (sigmoid(y) - t)`, with targets 0 or 1; a prediction are all labels of a row, and a
  label without a gradient, whose loss was masked, is none.

Then scale and targets are known, and with them the loss in nats, and what the network has *won*: how far it
is below the best loss that a constant output could have. Of other losses, a squared error among them, the
scale cannot be told; slopes are then taken in units of the gradient's own length, and what was won is the
variance of the outputs, which is what a regression explains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

LIKELY = 1e-6
"""Probabilities below that say too little, in the precision of a gradient."""

ROUNDING = 0.01
"""What the rounding of gradients in 16 bits may come to."""

LEAST_LABELS = 4
"""Labels whose gradients must agree for the loss to pass for one of a sigmoid."""

NEARLY = 0.02
"""How far a target may be from what it must be."""


@dataclass(frozen=True)
class Loss:
    """The loss of one step.

    Args:
        kind: `"softmax"`, `"sigmoid"` or `"other"`.
        scale: what a slope of the loss must be divided by to be that of the mean in nats per prediction;
            of other losses, to be in units of the gradient's length.
        predictions: over which the mean is; of other losses 1.
        nats: the mean loss; of other losses 0.
        constant: the mean target, `[classes]`; of a sigmoid how much of each label is 1 and how much is 0,
            `[2, labels]`, together less than 1 where some have none; of other losses the mean output.
        spread: the variance of the outputs about their mean, of other losses; else 0.
    """

    kind: str
    scale: float
    predictions: float
    nats: float
    constant: NDArray[np.float64]
    spread: float


def rows_of(outputs: Tensor, dim: int) -> Tensor:
    """Outputs, or their gradient, with one prediction a row: `[predictions, classes]`, classes along
    `dim`, in single precision at least."""
    if outputs.ndim != 2 or dim not in (-1, 1):
        outputs = outputs.movedim(dim, -1).reshape(-1, outputs.shape[dim])
    return outputs if outputs.dtype == torch.float64 else outputs.float()


def class_dim(outputs: Tensor, gradient: Tensor) -> int:
    """The dimension over which the gradient sums to zero, the second of images; else the last."""
    for dim in (-1, 1) if outputs.ndim > 2 else ():
        if _of_probabilities(rows_of(outputs, dim), rows_of(gradient, dim)) is not None:
            return dim
    return -1


def recognise(outputs: Tensor, gradient: Tensor, parts: Sequence[int] = ()) -> Loss | None:
    """What the loss is.

    Args:
        outputs: `[predictions, classes]`.
        gradient: of the loss, shaped alike.
        parts: how many predictions each call of the model gave, where there were several: the loss may be a
            sum of their means, so that predictions of small calls count for more.

    Returns:
        None if the gradient is zero everywhere, or all outputs are too sure to tell, or anything is not
        finite.
    """
    plain = _plain(outputs, gradient)
    if plain is not None:
        return plain
    if not (outputs.isfinite().all() and gradient.isfinite().all()):
        return None
    live = gradient.abs().sum(1) > 0  # targets may be ignored
    if not live.all():
        if not live.any():
            return None
        outputs, gradient = outputs[live], gradient[live]
    call = None
    if len(parts) > 1:
        call = torch.arange(len(parts)).repeat_interleave(torch.tensor(parts)).to(live.device)[live]
    found = _of_probabilities(outputs, gradient)
    if found is not None:
        told = _told(*found)
        if not told.any():
            return None
        softmax = _softmax_targets(outputs, *found, told)
        if softmax is not None:
            return _softmax(outputs, *softmax)
    return _sigmoid(outputs, gradient, call) or _other(outputs, gradient)


def targets(kind: str, outputs: Tensor, gradient: Tensor) -> Tensor | None:
    """The targets of a recognised loss, shaped like `outputs`; None of another, or where there are none.

    Of a sigmoid a label that has none is not a number.
    """
    if kind == "softmax":
        found = _of_probabilities(outputs, gradient)
        softmax = None if found is None else _softmax_targets(outputs, *found, _told(*found))
        return None if softmax is None else softmax[0]
    return _sigmoid_targets(outputs, gradient) if kind == "sigmoid" else None


def nats(kind: str, outputs: Tensor, target: Tensor) -> float:
    """The mean loss per prediction."""
    if kind == "softmax":
        return -(target * outputs.log_softmax(1)).sum(1).mean().item()
    return _sigmoid_nats(outputs, target).mean().item()


def won(kind: str, mean_nats: float, constant: NDArray[np.float64], spread: float) -> float:
    """What the network has won over the best constant output, in nats per prediction, at least 0.

    Of other losses half the variance of the outputs, so that silencing all units that make it costs that
    much in squared slopes.
    """
    if kind == "other":
        return spread / 2
    p = np.clip(constant, 1e-12, 1.0)
    whole = p.sum(0) if kind == "sigmoid" else 1.0
    return max(0.0, -float((p * np.log(p / whole)).sum()) - mean_nats)


@np.errstate(invalid="ignore")  # infinite outputs, of which nothing can be told
def _plain(outputs: Tensor, gradient: Tensor) -> Loss | None:
    """The loss that most networks have, in few operations: cross-entropy, each target a class and all alike.

    None if it is another, or cannot be told so easily.
    """
    count, classes = outputs.shape
    if classes < 2:
        return None
    # In NumPy, whose calls take half the time of PyTorch's on few entries.
    slopes, logs = gradient.cpu().numpy(), outputs.cpu().numpy()
    logs = logs - logs.max(1, keepdims=True)
    raised = np.exp(logs)
    total = raised.sum(1, keepdims=True)
    place = np.arange(count), slopes.argmin(1)  # of the target, the only one that is below 0
    mean = float((np.log(total[:, 0]) - logs[place]).mean())
    away = np.divide(raised, total, out=raised)
    away[place] -= 1
    square, least = float(np.square(away).sum()), float(slopes.min())
    if not (0 < square < math.inf and -math.inf < least < 0):
        return None
    scale = float((slopes * away).sum()) / square
    if not (scale > 0 and np.abs(slopes - scale * away).max() <= -NEARLY * least):
        return None
    constant = np.bincount(place[1], minlength=classes) / count
    return Loss("softmax", scale * count, float(count), mean, constant, 0.0)


def _of_probabilities(outputs: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor] | None:
    """`p = softmax(outputs)` and the gradient, if it is that of a function of `p`: it sums to zero over the
    classes.

    If the outputs are logarithms of probabilities already, that part of it which changes them.
    """
    if outputs.shape[1] < 2:
        return None
    p = outputs.softmax(1)
    if (outputs.logsumexp(1).abs() < ROUNDING).all():
        gradient = gradient - p * gradient.sum(1, keepdim=True)
    return (p, gradient) if gradient.sum(1).abs().sum() <= ROUNDING * gradient.abs().sum() else None


def _told(p: Tensor, gradient: Tensor) -> Tensor:
    """Gradient over probability of the classes that are not the target, or 0: `[predictions]`."""
    return torch.where(p > LIKELY, gradient / p, 0.0).amax(1).clamp_(min=0)


def _softmax_targets(
    outputs: Tensor, p: Tensor, centred: Tensor, ratios: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Targets and the scale of each prediction, `[predictions, 1]`; None if this is no cross-entropy of a
    softmax.

    Args:
        outputs: `[predictions, classes]`.
        p: probabilities.
        centred: the gradient, of `_of_probabilities`.
        ratios: of `_told`.
    """
    told = ratios > 0
    known = ratios if told.all() else ratios[told]
    if not len(known):
        return None
    scale = ratios if known is ratios else torch.where(told, ratios, known.median())
    for each, soft in ((scale, False), (known.max().expand(len(p)), True)):  # soft: the same for all
        one = each[:, None]
        target = p - centred / one
        seen = target if known is ratios else target[told]
        if (soft or (seen.amax(1) - 1).abs().max() < NEARLY) and seen.min() > -NEARLY:
            return (target.clamp_(0, 1), one) if not soft or _soft(outputs, target, ratios) else None
    return None


def _soft(outputs: Tensor, target: Tensor, ratios: Tensor) -> bool:
    """Whether soft targets are those of a cross-entropy: any gradient that sums to zero has some.

    Outputs that are centred, so that they sum to zero over the classes, give every loss such a gradient, a
    squared error too. There, only labels that are smoothed, alike for all classes but one, or mixed, of which
    all predictions say the same scale, pass for targets.

    Args:
        outputs: `[predictions, classes]`.
        target: from 0 to 1.
        ratios: of `_told`.
    """
    if outputs.sum(1).abs().sum() > ROUNDING * outputs.abs().sum():
        return True
    most = target.max(1, keepdim=True).values
    others = target[target < most]
    smoothed = bool(most.min() > 0.5) and (len(others) < 2 or bool(others.std() < NEARLY))
    return smoothed or bool(ratios.min() > (1 - NEARLY) * ratios.max())


def _softmax(outputs: Tensor, target: Tensor, scale: Tensor) -> Loss:
    total = scale.sum()
    weighted = scale / total * target  # by the weight of each prediction in the mean
    mean = -(weighted * outputs.log_softmax(1)).sum().item()
    return Loss("softmax", total.item(), float(len(outputs)), mean, _array(weighted.sum(0)), 0.0)


def _other(outputs: Tensor, gradient: Tensor) -> Loss:
    middle = outputs.mean(0)
    spread = (outputs - middle).square().mean().item()
    return Loss("other", gradient.square().sum().sqrt().item(), 1.0, 0.0, _array(middle), spread)


def _sigmoid(outputs: Tensor, gradient: Tensor, call: Tensor | None) -> Loss | None:
    p = outputs.sigmoid()
    far = torch.where(gradient > 0, p, 1 - p)  # from the target, if the targets are 0 and 1
    told = (far > LIKELY) & (gradient != 0)
    scale = _scale_of_all(gradient.abs() / far, told, call)
    if scale is None:
        return None
    target = _sigmoid_targets(outputs, gradient)
    total = scale.sum()
    weight = scale / total  # of each prediction in the mean
    mean = (weight * _sigmoid_nats(outputs, target)).sum().item()
    ones = (weight[:, None] * target).nansum(0)
    zeros = (weight[:, None] * (1 - target)).nansum(0)
    return Loss("sigmoid", total.item(), float(len(p)), mean, _array(torch.stack([ones, zeros])), 0.0)


def _scale_of_all(ratios: Tensor, told: Tensor, call: Tensor | None) -> Tensor | None:
    """The scale of each prediction, `[predictions]`, one for all of a call; None if they are not alike."""
    known = ratios[told]
    if len(known) < LEAST_LABELS:
        return None
    scale = known.median().expand(len(ratios))
    if known.std() <= ROUNDING * known.mean():
        return scale
    if call is None:
        return None
    scale = scale.clone()
    calls = set(call.tolist())
    for each in calls:
        mine = ratios[call == each][told[call == each]]
        if len(mine):
            scale[call == each] = mine.median()
    alike = (ratios / scale[:, None])[told]
    enough = len(known) >= len(calls) + LEAST_LABELS
    return scale if enough and (alike - 1).square().mean().sqrt() <= ROUNDING else None


def _sigmoid_targets(outputs: Tensor, gradient: Tensor) -> Tensor:
    """Targets of labels, 0 or 1; not a number where an output that is not sure has no gradient: its loss
    was masked."""
    p = outputs.sigmoid()
    sure = torch.minimum(p, 1 - p) <= LIKELY  # so that the gradient of a right target is lost in rounding
    target = torch.where(gradient == 0, outputs > 0, gradient < 0).double()
    return target.masked_fill_((gradient == 0) & ~sure, math.nan)


def _sigmoid_nats(outputs: Tensor, target: Tensor) -> Tensor:
    """Of each prediction, over the labels that have a target: `[predictions]`."""
    return (softplus(outputs) - target * outputs).nansum(1)


def _array(values: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.double().cpu().numpy()
    return found
