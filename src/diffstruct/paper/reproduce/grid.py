"""The grid of runs: each kept as soon as it is finished, and the time that is left."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from diffstruct.paper.reproduce.runs import Result, train
from diffstruct.paper.reproduce.settings import Job
from diffstruct.paper.reproduce.side_by_side import Done, Failure, side_by_side
from diffstruct.paper.reproduce.store import Store


@dataclass
class GridProgress:
    """The state of the grid, which an observer is shown."""

    jobs: Sequence[Job]
    workers: int = 1
    results: dict[Job, Result] = field(default_factory=dict)
    failures: dict[Job, Failure[Job]] = field(default_factory=dict)
    found: int = 0
    """Runs that were finished before it began."""
    last: Result | Failure[Job] | None = None
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

    def add(self, outcome: Result | Failure[Job]) -> None:
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
    with closing(side_by_side(train, pending, workers)) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome, Done):
                store.save(outcome.value)
                progress.add(outcome.value)
            else:
                progress.add(outcome)
            observe(progress)
