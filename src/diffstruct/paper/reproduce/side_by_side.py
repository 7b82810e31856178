"""Run one function on many jobs side by side, with joblib."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import joblib

from diffstruct.errors import DiffstructError

_TRIES = 3
"""How often workers may die before the jobs that are left are given up."""

Job = TypeVar("Job")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Done(Generic[Job, Value]):
    """A job, what the function returned for it, and how many seconds that took."""

    job: Job
    value: Value
    seconds: float


@dataclass(frozen=True)
class Failure(Generic[Job]):
    """A job that failed, and its error in one line."""

    job: Job
    error: str


def side_by_side(
    function: Callable[[Job], Value], jobs: Sequence[Job], workers: int
) -> Generator[Done[Job, Value] | Failure[Job], None, None]:
    """Call `function` on each job with joblib's present backend; yield each outcome once it is there.

    An error within the function is an outcome like others. Where the workers themselves end, such as when the
    system kills one for its memory, the other jobs go on in fresh workers, those that may have been running
    last. Closing the generator cancels what is running.

    Args:
        function: picklable, as must be what it returns.
        jobs: picklable, in the order in which to start them.
        workers: how many run at a time.
    """
    left, reason = [*range(len(jobs))], ""
    for _ in range(_TRIES):
        outcomes = _outcomes(function, [(index, jobs[index]) for index in left], workers)
        try:
            for index, value, error, seconds in outcomes:
                left.remove(index)
                job = jobs[index]
                yield Done(job, value, seconds) if error is None else Failure(job, error)
            return
        except Exception as error:
            reason = " ".join(str(error).split())
            left = [*left[workers:], *left[:workers]]
        finally:
            with warnings.catch_warnings():
                # joblib advises a shorter input when a generator is closed early, which is meant here.
                warnings.filterwarnings("ignore", message=".*tasks which were still being processed")
                warnings.filterwarnings("ignore", message=".*tasks have been successfully executed")
                outcomes.close()
    yield from (Failure(jobs[index], f"its worker died: {reason}") for index in left)


_Outcome = tuple[int, Any, str | None, float]
"""A job's index, what the function returned, the error in one line if there was one, and the seconds."""


def _outcomes(
    function: Callable[[Job], Any], jobs: Sequence[tuple[int, Job]], workers: int
) -> Generator[_Outcome, None, None]:
    calls = [joblib.delayed(_attempt)(function, index, job) for index, job in jobs]
    # Jobs take seconds to minutes: handing out one at a time costs nothing and packs best.
    if joblib.parallel.get_active_backend()[0].supports_return_generator:
        yield from joblib.Parallel(workers, return_as="generator_unordered", batch_size=1)(calls)
        return
    # Ray's backend gives nothing back before all is done. Neighbouring jobs take about as long, so that
    # little time is lost in waiting for the last of as many as run side by side.
    with joblib.Parallel(workers, batch_size=1) as parallel:
        for start in range(0, len(calls), workers):
            yield from parallel(calls[start : start + workers])


def _attempt(function: Callable[[Job], Any], index: int, job: Job) -> _Outcome:
    begin = time.perf_counter()
    value, line = None, None
    try:
        value = function(job)
    except Exception as error:
        line = " ".join(str(error).split())
        if not isinstance(error, DiffstructError):  # whose message says enough
            line = f"{type(error).__name__}: {line}"
    return index, value, line, time.perf_counter() - begin
