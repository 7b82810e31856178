"""Ctrl-C, and every other signal, while something must not be left half done.

Python runs signal handlers between any two of its instructions, so that `KeyboardInterrupt` may come where no
`try` is ready for it yet. In `held`, handlers wait until the end; in `allowed`, inside of that, they may run:
around code of the user's, which may take long, and from which an error is expected in any case. Only the main
thread runs handlers: elsewhere, both do nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from types import FrameType, TracebackType
from typing import Any, ParamSpec, TypeAlias, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Handler: TypeAlias = Callable[[int, FrameType | None], Any]

_SIGNALS = sorted(signal.valid_signals())
_holding: held | None = None
"""The outermost `held` that was entered; signals are those of the process, so that one is enough."""


class held:
    """Let the handlers of signals wait, from here to the end of the block."""

    def __init__(self) -> None:
        self._handlers: dict[int, Handler] = {}
        self._waiting: list[int] = []
        self._allowed = False

    def __enter__(self) -> None:
        global _holding
        if _holding is not None or threading.current_thread() is not threading.main_thread():
            return
        known = {number: signal.getsignal(number) for number in _SIGNALS}
        self._handlers = {number: each for number, each in known.items() if callable(each)}
        for number in self._handlers:
            signal.signal(number, self._receive)
        _holding = self  # last: until here, what comes goes to its handler, whichever is in place

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _holding
        if _holding is not self:
            return
        _holding = None  # from here on, a signal that comes goes to its handler, whichever is in place
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._deliver()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if _holding is not self:
            self._handlers[number](number, frame)
        elif self._allowed:
            self._allowed = False  # if it raises, what puts all back must not be interrupted
            self._handlers[number](number, frame)
            self._allowed = True
        else:
            self._waiting.append(number)

    def _deliver(self) -> None:
        """Let the handlers run that have waited, all of them, also if one of them raises."""
        waiting, self._waiting = self._waiting, []
        with ExitStack() as each:
            for number in reversed(waiting):
                each.callback(self._handlers[number], number, None)


def uninterrupted(function: Callable[P, R]) -> Callable[P, R]:
    """Let the handlers of signals wait while a function runs."""

    @wraps(function)
    def whole(*args: P.args, **kwargs: P.kwargs) -> R:
        with held():
            return function(*args, **kwargs)

    return whole


class allowed:
    """Let the handlers of signals run, those that have waited first, from here to the end of the block."""

    def __enter__(self) -> None:
        if _holding is not None and threading.current_thread() is threading.main_thread():
            _holding._deliver()
            _holding._allowed = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _holding is not None and threading.current_thread() is threading.main_thread():
            _holding._allowed = False
