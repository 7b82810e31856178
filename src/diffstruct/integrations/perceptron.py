"""The network of the scikit-learn estimators: a perceptron of `torch.nn` alone, and where its widths lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from diffstruct.couple import FoundWidths
from diffstruct.width import Attribute, Axis, Role, Slot, Width

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}
"""By the names that scikit-learn has for them."""


def check_parameters(sizes: object, activation: str, batch: object, passes: object) -> tuple[list[int], int]:
    """Hidden sizes and the size of batches, from what scikit-learn's perceptrons may be given.

    Args:
        sizes: of the hidden layers, or of the only one.
        activation: one of `ACTIVATIONS`.
        batch: samples in a step; "auto": 200.
        passes: over the data.

    Raises:
        ValueError: one of them cannot be.
    """
    hidden = [*sizes] if isinstance(sizes, Iterable) else [sizes]
    if not hidden:
        raise ValueError("hidden_layer_sizes must have one size at least")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {[*ACTIVATIONS]}, got {activation!r}")
    _whole("max_iter", passes)
    return [_whole("hidden_layer_sizes", each) for each in hidden], _whole(
        "batch_size", 200 if batch == "auto" else batch
    )


def _whole(name: str, value: object) -> int:
    if isinstance(value, int | np.integer) and value >= 1:
        return int(value)
    raise ValueError(f"{name} must be whole numbers of at least 1, got {value!r}")


class Standardise(nn.Module):
    """Brings columns to mean 0 and standard deviation 1, or back; in double precision, and not trained.

    Args:
        mean: `[columns]`.
        scale: `[columns]`, above 0.
        dtype: of what it returns.
        back: whether from there to the columns as they were.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, dtype: torch.dtype, back: bool = False) -> None:
        super().__init__()
        self.dtype, self.back = dtype, back
        self.register_buffer("mean", mean.double())
        self.register_buffer("scale", scale.double())

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x`, `[rows, columns]`, in the other unit."""
        return self._turned(x, self.back)

    def undo(self, x: Tensor) -> Tensor:
        """What `forward` would have to be given: `[rows, columns]`."""
        return self._turned(x, not self.back)

    def _turned(self, x: Tensor, back: bool) -> Tensor:
        x = x.to(self.mean.dtype)
        return (x * self.scale + self.mean if back else (x - self.mean) / self.scale).to(self.dtype)


def perceptron(
    sizes: Sequence[int], activation: str, dtype: torch.dtype, generator: torch.Generator
) -> nn.Sequential:
    """Linear layers with an activation between them, drawn as `torch.nn.Linear` draws.

    Args:
        sizes: of the input, the hidden layers and the output.
        activation: one of `ACTIVATIONS`.
        dtype: of the weights.
        generator: the only source of chance.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.Linear(inputs, outputs, dtype=dtype, device="meta").to_empty(device="cpu")
        bound = 1 / math.sqrt(inputs)
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        layers += [layer, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def hidden_widths(network: nn.Sequential) -> FoundWidths:
    """The widths of a `perceptron`, one for each hidden layer: what `find_widths` finds by running it."""
    layers = {name: each for name, each in network.named_children() if isinstance(each, nn.Linear)}
    widths = {}
    for (name, layer), reader in zip(layers.items(), [*layers.values()][1:], strict=False):
        units = Axis(layer.out_features)
        slots = (
            Slot(layer, "weight", 0, Role.INCOMING, units),
            Slot(layer, "bias", 0, Role.INCOMING, units),
            Slot(reader, "weight", 1, Role.OUTGOING, units),
        )
        sizes = Attribute(layer, "out_features", units), Attribute(reader, "in_features", units)
        widths[name] = Width(name, units, slots, sizes)
    return FoundWidths(network, widths, [], None)
