"""What a loss is, told by its gradient at the model's outputs. Pure.

The loss of a training step reaches us only as a gradient. Its scale there means nothing: a mean, a sum, a
factor or a `GradScaler` change it, and with it the square of every slope. But the gradient at the outputs
`y` gives most losses away:

- cross-entropy of a softmax: `dL/dy = s (softmax(y) - t)`, which sums to zero over the classes, with targets
  `t` that are a class each;
- of a sigmoid: `dL/dy = s (sigmoid(y) - t)`, with targets 0 or 1.

Then scale and targets are known, and with them the loss in nats, and what the network has *won*: how far it
is below the best loss that a constant output could have. Of other losses, a squared error among them, the
scale cannot be told; slopes are then taken in units of the gradient's own length, and what was won is the
variance of the outputs, which is what a regression explains.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

LIKELY = 1e-6
"""Probabilities below that say too little, in the precision of a gradient."""

ROUNDING = 0.01
"""What the rounding of gradients in 16 bits may come to."""

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
        constant: the mean target, `[classes]`; of other losses the mean output.
        spread: the variance of the outputs about their mean, of other losses; else 0.
    """

    kind: str
    scale: float
    predictions: float
    nats: float
    constant: Tensor
    spread: float


def rows_of(outputs: Tensor, dim: int) -> Tensor:
    """Outputs, or their gradient, with one prediction a row: `[predictions, classes]`, classes along
    `dim`."""
    return outputs.movedim(dim, -1).reshape(-1, outputs.shape[dim]).float()


def class_dim(outputs: Tensor, gradient: Tensor) -> int:
    """The dimension over which the gradient sums to zero, the second of images; else the last."""
    for dim in (-1, 1) if outputs.ndim > 2 else ():
        if _of_probabilities(rows_of(outputs, dim), rows_of(gradient, dim)) is not None:
            return dim
    return -1


def recognise(outputs: Tensor, gradient: Tensor) -> Loss | None:
    """What the loss is.

    Args:
        outputs: `[predictions, classes]`.
        gradient: of the loss, shaped alike.

    Returns:
        None if the gradient is zero everywhere, or all outputs are too sure to tell.
    """
    live = gradient.abs().sum(1) > 0  # targets may be ignored
    if not live.any():
        return None
    outputs, gradient = outputs[live], gradient[live]
    centred = _of_probabilities(outputs, gradient)
    if centred is not None:
        p = outputs.softmax(1)
        ratios = _told(p, centred)
        if not ratios.any():
            return None
        scale = _softmax_scale(p, centred, ratios)
        if scale is not None:
            return _softmax(outputs, (p - centred / scale).clamp(0, 1), scale)
    return _sigmoid(outputs, gradient) or _other(outputs, gradient)


def targets(kind: str, outputs: Tensor, gradient: Tensor) -> Tensor | None:
    """The targets of a recognised loss, shaped like `outputs`; None of another, or where there are none."""
    if kind == "softmax":
        centred = _of_probabilities(outputs, gradient)
        if centred is None:
            return None
        p = outputs.softmax(1)
        scale = _softmax_scale(p, centred, _told(p, centred))
        return None if scale is None else (p - centred / scale).clamp(0, 1)
    return (gradient < 0).double() if kind == "sigmoid" else None


def nats(kind: str, outputs: Tensor, target: Tensor) -> float:
    """The mean loss per prediction."""
    if kind == "softmax":
        return -(target * outputs.log_softmax(1)).sum(1).mean().item()
    return (softplus(outputs) - target * outputs).sum(1).mean().item()


def won(kind: str, mean_nats: float, constant: Tensor, spread: float) -> float:
    """What the network has won over the best constant output, in nats per prediction, at least 0.

    Of other losses half the variance of the outputs, so that silencing all units that make it costs that
    much in squared slopes.
    """
    if kind == "other":
        return spread / 2
    p = constant.clamp(1e-12, 1 - 1e-12)
    entropy = -(p * p.log()) if kind == "softmax" else -(p * p.log() + (1 - p) * (1 - p).log())
    return max(0.0, entropy.sum().item() - mean_nats)


def _of_probabilities(outputs: Tensor, gradient: Tensor) -> Tensor | None:
    """The gradient, if it is that of a function of `softmax(outputs)`: it sums to zero over the classes.

    If the outputs are logarithms of probabilities already, that part of it which changes them.
    """
    if outputs.shape[1] < 2:
        return None
    if bool((outputs.logsumexp(1).abs() < ROUNDING).all()):
        gradient = gradient - outputs.softmax(1) * gradient.sum(1, keepdim=True)
    return gradient if gradient.sum(1).abs().sum() <= ROUNDING * gradient.abs().sum() else None


def _told(p: Tensor, gradient: Tensor) -> Tensor:
    """Gradient over probability of the classes that are not the target, or 0: `[predictions]`."""
    return torch.where(p > LIKELY, gradient / p, 0.0).amax(1).clamp(min=0)


def _softmax_scale(p: Tensor, centred: Tensor, ratios: Tensor) -> Tensor | None:
    """The scale of each prediction, `[predictions, 1]`; None if this is no cross-entropy of a softmax.

    Args:
        p: probabilities.
        centred: the gradient, of `_of_probabilities`.
        ratios: of `_told`.
    """
    told = ratios > 0
    if not told.any():
        return None
    scale = torch.where(told, ratios, ratios[told].median())[:, None]
    whole = ratios[told].max()  # with soft targets, the same for all predictions
    for one in (scale, whole.expand(len(p), 1)):
        target = p - centred / one
        sharp = one is not scale or bool(((target[told].amax(1) - 1).abs() < NEARLY).all())
        if sharp and bool((target[told] > -NEARLY).all()):
            return one
    return None


def _softmax(outputs: Tensor, target: Tensor, scale: Tensor) -> Loss:
    total = scale.sum()
    weight = scale / total  # of each prediction in the mean
    mean = -(weight * target * outputs.log_softmax(1)).sum().item()
    constant = (weight * target).sum(0)
    return Loss("softmax", total.item(), float(len(outputs)), mean, constant, 0.0)


def _other(outputs: Tensor, gradient: Tensor) -> Loss:
    middle = outputs.mean(0)
    spread = (outputs - middle).square().mean().item()
    return Loss("other", gradient.square().sum().sqrt().item(), 1.0, 0.0, middle, spread)


def _sigmoid(outputs: Tensor, gradient: Tensor) -> Loss | None:
    p = outputs.sigmoid()
    far = torch.where(gradient > 0, p, 1 - p)  # from the target, if the targets are 0 and 1
    ratios = (gradient.abs() / far)[(far > LIKELY) & (gradient != 0)]
    if len(ratios) < 4 or ratios.std() > ROUNDING * ratios.mean():
        return None
    target = (gradient < 0).double()
    count = len(outputs)
    mean = nats("sigmoid", outputs, target)
    return Loss("sigmoid", ratios.median().item() * count, float(count), mean, target.mean(0), 0.0)
