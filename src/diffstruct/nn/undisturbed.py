"""Running a model so that nothing about it, and no source of random numbers, is different afterwards."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

SEED = 0
"""Of what the model itself draws, unless another is given."""


@contextmanager
def undisturbed(model: nn.Module, training: bool = False, seed: int = SEED) -> Iterator[None]:
    """Restore modes, buffers and random numbers after a run.

    Args:
        model: the model.
        training: whether its modules keep the modes that they are in; else all are in evaluation mode.
        seed: of what the model itself draws.
    """
    modes = {module: module.training for module in model.modules()}
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    with _seeded(devices, seed):
        try:
            if not training:
                model.eval()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # those of the model come again when its user runs it
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            with torch.no_grad():
                for module, name, buffer, before in buffers:
                    if _differ(buffer, before):
                        buffer.copy_(before)
                    module._buffers[name] = buffer


def _differ(buffer: Tensor, before: Tensor) -> bool:
    """Whether two tensors differ; also where there is no memory to compare them, since copying needs none."""
    try:
        return not torch.equal(buffer, before)
    except RuntimeError:
        return True


@contextmanager
def _seeded(devices: Iterable[torch.device], seed: int) -> Iterator[None]:
    """Seed the generator of the CPU and those of `devices`, no others, and restore them afterwards.

    So with those of Python and NumPy that all code shares: a model's may leave blocks out by them.
    """
    indices = [device.index for device in devices if device.type == "cuda"]
    generators = [torch.default_generator, *(torch.cuda.default_generators[index] for index in indices)]
    states = [generator.get_state() for generator in generators]
    pythons, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        random.setstate(pythons)
        np.random.set_state(numpys)  # noqa: NPY002
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
