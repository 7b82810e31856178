"""Random numbers that do not depend on how many are drawn, so that a model can be compared at two sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from diffstruct.couple.call import name_of

SEED = 0


class EvenDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The mode under which every draw of normal or uniform numbers is one number, the same for all entries.

    Each draw has a number of its own. A unit that nothing reads is silent whatever is drawn.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generator = np.random.default_rng(SEED)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        draw = _DRAWS.get(name_of(func)) if func.namespace == "aten" else None
        if draw is not None and isinstance(result, Tensor) and result.is_floating_point():
            given = {
                argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)
            }
            with torch.no_grad():
                result.copy_(torch.as_tensor(draw(self._generator, {**given, **kwargs})).to(result))
        return result


def _standard_normal(generator: np.random.Generator, given: Mapping[str, Any]) -> float:
    return float(generator.standard_normal())


def _normal(generator: np.random.Generator, given: Mapping[str, Any]) -> Any:
    return given.get("mean", 0.0) + given.get("std", 1.0) * float(generator.standard_normal())


def _uniform(generator: np.random.Generator, given: Mapping[str, Any]) -> float:
    low, high = given.get("from", 0.0), given.get("to", 1.0)
    return float(low + (high - low) * generator.random())


def _exponential(generator: np.random.Generator, given: Mapping[str, Any]) -> float:
    return -math.log(1 - generator.random()) / float(given.get("lambd", 1.0))


_DRAWS = {
    **dict.fromkeys(("randn", "randn_like"), _standard_normal),
    **dict.fromkeys(("normal", "normal_"), _normal),
    **dict.fromkeys(("rand", "rand_like", "uniform", "uniform_"), _uniform),
    **dict.fromkeys(("exponential", "exponential_"), _exponential),
}
