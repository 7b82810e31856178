"""What the processes saw of a training step, put together: as one process would have seen the whole batch.

Each process has the gradients of its own part of the batch; `DistributedDataParallel` trains on their mean.
Derivatives with respect to factors on units are linear in the gradient, so theirs is the mean, too. What the
loss is, is told from the outputs of the whole batch, and the gradient of that mean with respect to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffstruct.distributed.group import Group


@dataclass(frozen=True)
class Rows:
    """Outputs of the model, one prediction a row, and the gradient of the loss there.

    Args:
        outputs: `[predictions, classes]`, those that are looked at.
        gradient: of the loss, shaped alike.
        dim: of the model's output along which one prediction lies.
        every: how many predictions there are, those included that are not looked at.
        parts: how many of the rows each call of the model gave.
    """

    outputs: Tensor
    gradient: Tensor
    dim: int
    every: float
    parts: tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """What was seen of the training step that a decision is about.

    Args:
        stepped: whether an optimizer made a step of it.
        slopes: by width, the derivatives of the loss with respect to factors on its units, `[units]`; only of
            widths whose weights had a gradient.
        rows: None if no output was seen.
        parts: whether the slopes are of the mean gradient already, and of some rows of the weights.
    """

    stepped: bool
    slopes: Mapping[str, NDArray[np.float64]]
    rows: Rows | None
    parts: bool = False

    @property
    def finite(self) -> bool:
        """Whether all slopes are."""
        return all(np.isfinite(each).all() for each in self.slopes.values())


def together(group: Group, seen: Seen, sizes: Mapping[str, int], step: int) -> Seen:
    """What all processes have seen together; two sums over all of them.

    Args:
        group: of the processes.
        seen: by this one.
        sizes: of the widths, by name.
        step: the number of the training step.

    Raises:
        StructureError: on all processes, if they are not at the same step and sizes.
    """
    group.agree((step, seen.stepped, *sizes.items()), f"sizes, or in what they did, at step {step}")
    rows = seen.rows
    header = [0.0] * 6
    if rows is not None:
        live = float(bool((rows.gradient != 0).any()))
        double = float(rows.outputs.dtype == torch.float64)
        shape = [float(each) for each in rows.outputs.shape]
        header = [*shape, float(rows.dim), rows.every, live, double]
    table = group.gather(header)
    counts = _that_fit(table)
    widest = int(table[counts > 0][0, 1]) if counts.any() else 0
    slopes = np.concatenate(
        [[float(name in seen.slopes), *seen.slopes.get(name, np.zeros(size))] for name, size in sizes.items()]
    )
    entries = np.zeros((2, int(counts.sum()), widest))
    begins = np.zeros(int(counts.sum()))  # 1 where the rows of a call begin
    if rows is not None and counts[group.rank]:
        begin = int(counts[: group.rank].sum())
        end = begin + int(counts[group.rank])
        entries[0, begin:end] = rows.outputs.double().cpu().numpy()
        entries[1, begin:end] = rows.gradient.double().cpu().numpy()
        begins[begin + np.cumsum((0, *rows.parts[:-1]))] = 1.0
    total = group.sum(np.concatenate([slopes, begins, entries.ravel()]))
    found, place = {}, 0
    for name, size in sizes.items():
        if total[place]:
            found[name] = total[place + 1 : place + 1 + size] / (1 if seen.parts else group.size)
        place += 1 + size
    if not counts.any():
        return Seen(seen.stepped, found, None)
    parts = np.diff(np.flatnonzero(total[place : place + len(begins)]), append=len(begins)).tolist()
    place += len(begins)
    dtype = torch.float64 if table[:, 5].any() else torch.float32
    outputs, gradient = torch.from_numpy(total[place:].reshape(entries.shape)).to(dtype)
    dim, every = int(table[counts > 0][0, 2]), float(table[counts > 0][:, 3].sum())
    return Seen(seen.stepped, found, Rows(outputs, gradient / group.size, dim, every, tuple(parts)))


def _that_fit(table: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many rows each process gives: none if they lie otherwise than those of the first that has a
    gradient."""
    counts = table[:, 0].astype(np.int64)
    first = np.flatnonzero((table[:, 4] > 0) if table[:, 4].any() else counts > 0)
    if len(first):
        counts[(table[:, 1:3] != table[first[0], 1:3]).any(1)] = 0
    return counts
