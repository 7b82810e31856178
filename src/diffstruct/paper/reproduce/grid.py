"""Run many jobs side by side, each kept as soon as it is finished."""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import joblib

from diffstruct.paper.reproduce.runs import Failure, Result, attempt
from diffstruct.paper.reproduce.settings import Job
from diffstruct.paper.reproduce.store import Store

_TRIES = 3
"""How often workers may die before the rest is given up."""


@dataclass
class GridProgress:
    """Where the grid stands: what an observer is shown."""

    jobs: Sequence[Job]
    workers: int = 1
    results: dict[Job, Result] = field(default_factory=dict)
    failures: dict[Job, Failure] = field(default_factory=dict)
    found: int = 0
    """Runs that were there when it began."""
    last: Result | Failure | None = None
    _left: float = float("inf")
    _since: float = 0.0

    @property
    def done(self) -> int:
        """Runs that are over, failed ones among them."""
        return len(self.results) + len(self.failures)

    @property
    def seconds_left(self) -> float:
        """An estimate from the runs that are finished; infinite before the first."""
        return max(self._left - (time.perf_counter() - self._since), 0.0)

    def add(self, outcome: Result | Failure) -> None:
        """Count a run that is over."""
        self.last = outcome
        if isinstance(outcome, Result):
            self.results[outcome.job] = outcome
        else:
            self.failures[outcome.job] = outcome
        self.estimate()

    def estimate(self) -> None:
        """Bring the time left up to date."""
        pending = [job for job in self.jobs if job not in self.results and job not in self.failures]
        self._left = estimate(pending, self.results.values(), self.workers)
        self._since = time.perf_counter()


def estimate(pending: Sequence[Job], finished: Iterable[Result], workers: int) -> float:
    """Seconds until all of `pending` are finished; infinite if nothing is known yet.

    A job takes as long as the mean of its setting's finished runs, or, where there are none, as long as
    its cost says at the speed of all finished runs.
    """
    seconds = defaultdict(list)
    spent = cost = 0.0
    for result in finished:
        seconds[result.job.setting].append(result.seconds)
        spent += result.seconds
        cost += result.job.cost
    if not pending:
        return 0.0
    if not cost:
        return float("inf")
    means = {setting: sum(each) / len(each) for setting, each in seconds.items()}
    total = sum(means.get(job.setting, job.cost * spent / cost) for job in pending)
    return total / min(workers, len(pending))


def run(
    jobs: Sequence[Job],
    store: Store,
    workers: int,
    progress: GridProgress,
    observe: Callable[[GridProgress], None],
) -> None:
    """Run those of `jobs` that `progress` does not hold yet, with joblib's present backend.

    Args:
        jobs: in the order in which to start them.
        store: keeps each finished run at once.
        workers: runs side by side.
        progress: brought up to date after each run.
        observe: called with it then.

    Raises:
        KeyboardInterrupt: the user stopped it; at most the runs in flight are lost.
        RunFolderError: the disk refuses.
    """
    progress.workers = workers
    progress.estimate()
    observe(progress)
    pending = [job for job in jobs if job not in progress.results]
    with warnings.catch_warnings():
        # joblib advises to shorten its input when one stops early: here the user did, on purpose.
        warnings.filterwarnings("ignore", message=".*tasks which were still being processed")
        warnings.filterwarnings("ignore", message=".*tasks have been successfully executed")
        with closing(_outcomes(pending, workers)) as outcomes:
            for outcome in outcomes:
                if isinstance(outcome, Result):
                    store.save(outcome)
                progress.add(outcome)
                observe(progress)


def _outcomes(pending: Sequence[Job], workers: int) -> Generator[Result | Failure, None, None]:
    """What comes of each job, as soon as it is over.

    What goes wrong within a run is a value; an error is the workers' own, such as one that the system killed
    for its memory. The others then go on in fresh ones, those that may have been in flight last.
    """
    left, reason = [*pending], ""
    for _ in range(_TRIES):
        try:
            for outcome in _side_by_side([*left], workers):
                left.remove(outcome.job)
                yield outcome
            return
        except Exception as error:
            reason = " ".join(str(error).split())
            left = [*left[workers:], *left[:workers]]
    yield from (Failure(job, f"its worker died: {reason}") for job in left)


def _side_by_side(jobs: Sequence[Job], workers: int) -> Iterator[Result | Failure]:
    calls = [joblib.delayed(attempt)(job) for job in jobs]
    # Runs take seconds to minutes: handing out one at a time costs nothing and packs best.
    if joblib.parallel.get_active_backend()[0].supports_return_generator:
        yield from joblib.Parallel(return_as="generator_unordered", batch_size=1)(calls)
        return
    # Ray's backend gives nothing back before all is done. Neighbouring jobs take about as long, so that
    # little time is lost in waiting for the last of as many as run side by side.
    with joblib.Parallel(batch_size=1) as parallel:
        for start in range(0, len(calls), workers):
            yield from parallel(calls[start : start + workers])
