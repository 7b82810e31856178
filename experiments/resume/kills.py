"""Processes that are killed at random moments, again and again, until one comes to its end."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

_FORK = multiprocessing.get_context("fork")  # a child begins where imports and compilation are done

NOTHING_YET = 3
"""What `again` returns, and its process's exit code, where there is nothing to go on with yet."""


@dataclass
class Endured:
    """What a piece of work has gone through.

    Args:
        killed: how often its process was killed by a SIGKILL.
        stopped: how often it was told to stop by a SIGTERM.
        anew: how often there was nothing to go on with yet, so that it was begun anew.
        seconds: from beginning to end.
    """

    killed: int = 0
    stopped: int = 0
    anew: int = 0
    seconds: float = 0.0


@dataclass
class Trial:
    """One run that was interrupted, beside one that was not."""

    case: str
    endured: Endured
    changes: int
    differences: list[str]


def endure(
    first: Callable[[], int], again: Callable[[], int], chance: random.Random, seconds: float, most: int
) -> Endured:
    """Begin a piece of work, and go on with it until it is done, while its processes are killed.

    Args:
        first: begins; returns an exit code, as `again` does.
        again: goes on; returns `NOTHING_YET` where there is nothing to go on with.
        chance: when the processes are killed.
        seconds: how long the work takes without an interruption.
        most: kills; the process after that is left alone.

    Raises:
        RuntimeError: a process failed by itself.
    """
    endured, work = Endured(), first
    begin = time.monotonic()
    while True:
        process = _FORK.Process(target=_ends_with, args=(work,))
        process.start()
        last = endured.killed + endured.stopped >= most
        process.join(None if last else chance.uniform(0, seconds / most))
        number = signal.SIGTERM if chance.random() < 0.2 else signal.SIGKILL
        if process.exitcode is None:
            process.terminate() if number == signal.SIGTERM else process.kill()
            process.join()
        code, work = process.exitcode, again
        if code == 0:
            endured.seconds = time.monotonic() - begin
            return endured
        if code == -signal.SIGKILL:
            endured.killed += 1
        elif code in (130, -signal.SIGTERM):
            endured.stopped += 1
        elif code == NOTHING_YET:
            endured.anew, work = endured.anew + 1, first
        else:
            raise RuntimeError(f"a process ended with exit code {code}")


def alone(work: Callable[[], int]) -> float:
    """Do a piece of work in a process of its own, without an interruption; return the seconds that it took.

    Raises:
        RuntimeError: the process failed.
    """
    begin = time.monotonic()
    process = _FORK.Process(target=_ends_with, args=(work,))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"a process ended with exit code {process.exitcode}")
    return time.monotonic() - begin


def _ends_with(work: Callable[[], int]) -> None:
    raise SystemExit(work())
