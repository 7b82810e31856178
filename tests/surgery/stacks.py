"""A model of two recurrent layers, its training, and what surgery should make of it.

What a tensor should become is worked out in NumPy, from what torch documents of each layer's layout:
unfold each dimension into (blocks, units), take the units that stay, pad with zeros, fold again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer

import diffstruct as ds
from diffstruct.surgery import Change

GATES = {ds.nn.RNN: 1, ds.nn.GRU: 3, ds.nn.LSTM: 4}
Axes = list[tuple[int, str | None]]
"""For each dimension of a tensor, how many blocks it has, and of which width (if any) the units are."""
slow = settings(max_examples=40)
PLAN = {"lower": ([0, 2], 2), "upper": ([1], 2)}
"""For each width that changes, the units that stay and how many are added."""


class Stack(nn.Module):
    """Two recurrent layers, a multiplier between them, and a readout."""

    def __init__(self, lower, upper, sizes=(3, 2), dtype=torch.float64, options=({}, {})):
        super().__init__()
        self.lower = lower(2, sizes[0], dtype=dtype, **options[0])
        inputs = sizes[0] * (1 + self.lower.bidirectional)
        self.multiplier = ds.nn.Multiplier(inputs, dtype=dtype)
        self.upper = upper(inputs, sizes[1], dtype=dtype, **options[1])
        self.readout = nn.Linear(sizes[1] * (1 + self.upper.bidirectional), 3, dtype=dtype)
        self.lower.feeds(self.multiplier, self.upper)
        self.upper.feeds(self.readout)

    def forward(self, x: Tensor, states=(None, None), plain: bool = False) -> tuple[Tensor, list]:
        lower, upper = (layer.to_torch() if plain else layer for layer in (self.lower, self.upper))
        hidden, low = lower(x, states[0])
        hidden, up = upper(self.multiplier(hidden), states[1])
        return self.readout(hidden), [low, up]

    def axes(self) -> dict[str, Axes]:
        """What torch documents: gates of an LSTM one after the other, directions side by side."""
        found: dict[str, Axes] = {}
        inputs: tuple[int, str | None] = (1, None)
        for name in ("lower", "upper"):
            layer = getattr(self, name)
            gates, directions = GATES[type(layer)], 1 + layer.bidirectional
            for number in range(layer.num_layers):
                for suffix in ("", "_reverse")[:directions]:
                    end = f"_l{number}{suffix}"
                    found[f"{name}.weight_ih{end}"] = [(gates, name), inputs]
                    found[f"{name}.weight_hh{end}"] = [(gates, name), (1, name)]
                    found[f"{name}.bias_ih{end}"] = found[f"{name}.bias_hh{end}"] = [(gates, name)]
                inputs = (directions, name)
            if name == "lower":
                found["multiplier.weight"] = [inputs]
        return found | {"readout.weight": [(1, None), inputs], "readout.bias": [(1, None)]}

    def change(self, plan: dict[str, tuple[list[int], int]]) -> list[Change]:
        return [
            Change(getattr(self, name).declare_width(name), tuple(k), add) for name, (k, add) in plan.items()
        ]


def cut_with_numpy(tensor: Tensor, axes: Axes, plan: dict[str, tuple[list[int], int]]) -> Tensor:
    """What becomes of `tensor` when the units of each width in `plan` are kept, and zeros appended."""
    array = tensor.detach().double().numpy()  # holds every float32 and bfloat16 exactly
    pairs = zip(axes, array.shape, strict=True)
    array = array.reshape([part for (blocks, _), n in pairs for part in (blocks, n // blocks)])
    for axis, (_, width) in enumerate(axes):
        if width in plan:
            keep, add = plan[width]
            array = array.take(np.array(keep, dtype=int), axis=2 * axis + 1)
            array = np.pad(array, [(0, add if i == 2 * axis + 1 else 0) for i in range(array.ndim)])
    shape = [array.shape[2 * i] * array.shape[2 * i + 1] for i in range(len(axes))]
    return torch.from_numpy(array.reshape(shape)).to(tensor.dtype)


def state_of(model: nn.Module, *optimizers: Optimizer) -> Iterator[tuple[str, Any]]:
    """All that surgery may touch: tensors, gradients, optimizer state, sizes."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        yield name, tensor
        yield f"{name}:grad", tensor.grad
        for i, optimizer in enumerate(optimizers):
            for key, value in optimizer.state.get(tensor, {}).items():
                yield f"{name}:{i}:{key}", value
    for name, module in model.named_modules():
        for attribute in ("hidden_size", "input_size", "in_features", "num_units"):
            if hasattr(module, attribute):
                yield f"{name}.{attribute}", getattr(module, attribute)


@st.composite
def stacks(draw: Any, dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64, torch.bfloat16)):
    kinds, options, flag = st.sampled_from([*GATES]), [], st.booleans()
    for _ in range(2):
        layers = draw(st.integers(1, 2))
        options.append({"num_layers": layers, "bidirectional": draw(flag), "bias": draw(flag)})
    sizes = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    torch.manual_seed(draw(st.integers(0, 99)))
    return Stack(draw(kinds), draw(kinds), sizes, draw(st.sampled_from(dtypes)), options)


def plans(draw: Any, model: Stack) -> dict[str, tuple[list[int], int]]:
    """What becomes of each width; a width that is missing stays as it is."""
    plan = {}
    for name in draw(st.sampled_from([("lower",), ("upper",), ("lower", "upper"), ("upper", "lower")])):
        keep = draw(st.sets(st.integers(0, getattr(model, name).hidden_size - 1)))
        plan[name] = sorted(keep), draw(st.integers(0 if keep else 1, 3))
    return plan


def train_step(model: Stack, optimizer: Optimizer, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 2, 2, generator=generator).to(model.readout.weight)
    optimizer.zero_grad()
    model(x)[0].square().sum().backward()
    optimizer.step()


def trained(steps: int = 2) -> tuple[Stack, Optimizer]:
    torch.manual_seed(0)
    model = Stack(ds.nn.GRU, ds.nn.LSTM)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for seed in range(steps):
        train_step(model, optimizer, seed)
    return model, optimizer


def draw_new(changes: Sequence[Change], values: Mapping[Tensor, Tensor]) -> None:
    """Draw new entries, which are the only ones that are zero in these models."""
    generator = torch.Generator().manual_seed(1)
    for value in values.values():
        drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
        value.copy_(torch.where(value == 0, 0.3 * drawn, value))


class ConstantSize(nn.Linear):
    """A linear layer whose sizes cannot be set after it is made."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("in_features", "out_features") and name in vars(self):
            raise AttributeError("cannot be set")
        super().__setattr__(name, value)


@contextmanager
def untouched(error: type[BaseException], model: Stack, optimizer: Optimizer, match: str | None = None):
    """Expect `error` in the body, and after it all as before: each object the same one, bit for bit."""
    objects = dict(state_of(model, optimizer))
    values = {name: v.detach().clone() if isinstance(v, Tensor) else v for name, v in objects.items()}
    with pytest.raises(error, match=match):
        yield
    now = dict(state_of(model, optimizer))
    assert now.keys() == objects.keys()
    for name, value in values.items():
        if isinstance(value, Tensor):
            assert now[name] is objects[name], name
            assert torch.equal(now[name], value), name
        else:
            assert now[name] == value, name
