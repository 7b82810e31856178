"""Everything that there is to know of some objects, to compare before and after; and faults at any point."""

from __future__ import annotations

import signal
import sys
import types
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from linecache import getline
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

import diffstruct

SOURCE = str(Path(diffstruct.__file__).parent)
PLAIN = (str, bytes, int, float, complex, bool, type(None), type, torch.dtype, torch.device)


def picture(*roots: Any) -> dict[str, Any]:
    """All values that can be reached from some objects, by the way to them, and PyTorch's generator."""
    found: dict[str, Any] = {"torch": torch.get_rng_state()}
    seen: dict[int, Any] = {}
    for number, root in enumerate(roots):
        _look(root, str(number), found, seen)
    return found


def _look(each: Any, path: str, found: dict[str, Any], seen: dict[int, Any]) -> None:
    if isinstance(each, PLAIN):
        found[path] = each
        return
    if id(each) in seen:
        return
    seen[id(each)] = each
    inside: Any = ()
    if isinstance(each, Tensor):
        found[path] = each.detach().clone()
        found[f"{path}:object"] = id(each), each.requires_grad, len(each._post_accumulate_grad_hooks or ())
        inside = [("grad", each.grad)]
    elif isinstance(each, np.ndarray):
        found[path] = each.copy()
    elif isinstance(each, np.random.Generator):
        found[path] = str(each.bit_generator.state)
    elif isinstance(each, RemovableHandle):
        hooks = each.hooks_dict_ref()
        found[path] = hooks is not None and each.id in hooks
    elif isinstance(each, dict):
        found[f"{path}:keys"] = [key if isinstance(key, PLAIN) else type(key).__name__ for key in each]
        inside = enumerate(each.values())
    elif isinstance(each, (list, tuple)):
        found[f"{path}:length"] = len(each)
        inside = enumerate(each)
    elif isinstance(each, (set, frozenset)):
        found[path] = {one if isinstance(one, PLAIN) else type(one) for one in each}, len(each)
    elif isinstance(each, types.MethodType):
        inside = [("self", each.__self__)]
    elif isinstance(each, (weakref.ref, types.FunctionType, types.BuiltinFunctionType)):
        return
    elif hasattr(each, "__dict__"):
        found[f"{path}:class"] = type(each).__name__
        inside = vars(each).items()
    for name, one in inside:
        _look(one, f"{path}.{name}", found, seen)


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Where two pictures differ."""
    ways = [*before, *(way for way in after if way not in before)]
    return [
        way for way in ways if way not in before or way not in after or not _same(before[way], after[way])
    ]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (Tensor, np.ndarray)):
        same = torch.equal if isinstance(one, Tensor) else np.array_equal
        both = type(one) is type(other) and one.shape == other.shape and one.dtype == other.dtype
        if both and one.dtype in (torch.float32, torch.float64, np.float64):
            return bool(((one == other) | ((one != one) & (other != other))).all())
        return both and same(one, other)
    return bool(one == other or (one != one and other != other))


class FailingOperator(TorchDispatchMode):
    """Runs out of memory at an operator of PyTorch's, by its number, and counts them."""

    def __init__(self, at: int, error: BaseException) -> None:
        super().__init__()
        self.at, self.error, self.count = at, error, 0

    def __torch_dispatch__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Copying into memory that is there needs none: what puts weights back does nothing else.
        self.count += function not in (torch.ops.aten.copy_.default, torch.ops.aten.detach.default)
        if 0 < self.at == self.count:
            self.at = 0
            raise self.error
        return function(*args, **(kwargs or {}))


class Lines:
    """Counts the lines of ours that run, and does something at one of them.

    Args:
        at: its number; None: only count.
        what: is done.
        without: files in which lines are not counted.
    """

    def __init__(self, at: int | None, what: Any, without: tuple[str, ...] = ()) -> None:
        self.at, self.what, self.count = at, what, 0
        self.without = without
        self.places: list[tuple[str, int]] = []

    def _trace(self, frame: Any, event: str, arg: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(SOURCE) or name.endswith(self.without or ("//",)):
            return None
        return self._line

    def _line(self, frame: Any, event: str, arg: Any) -> Any:
        # Leaving a `with` counts as its line once more: nothing can fail there, and signals are held.
        line = getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
        if event == "line" and not line.startswith("with "):
            self.count += 1
            if self.at is None:
                self.places.append((frame.f_code.co_filename[len(SOURCE) :], frame.f_lineno))
            if self.count == self.at:
                sys.settrace(None)
                self.what()
        return self._line

    @contextmanager
    def traced(self) -> Iterator[Lines]:
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            yield self
        finally:
            sys.settrace(before)


def interrupt() -> None:
    """Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


def out_of_memory() -> None:
    """What Python raises at any line."""
    raise MemoryError
