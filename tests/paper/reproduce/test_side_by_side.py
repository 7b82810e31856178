"""Many jobs side by side, in this process and in workers of their own."""

import os

import pytest

from diffstruct.errors import DivergenceError
from diffstruct.paper.reproduce import side_by_side as module
from diffstruct.paper.reproduce.side_by_side import Done, Failure, side_by_side

pytestmark = pytest.mark.slow


def invert(job):
    if job == 7:
        raise DivergenceError("the loss\nis nan")
    return 1 / job


def values(outcomes):
    return {outcome.job: outcome.value for outcome in outcomes if isinstance(outcome, Done)}


def failures(outcomes):
    return {outcome for outcome in outcomes if isinstance(outcome, Failure)}


def test_each_job_has_its_value_or_its_error_in_one_line():
    outcomes = [*side_by_side(invert, [4, 0, 2, 7], workers=1)]
    assert values(outcomes) == {4: 0.25, 2: 0.5}
    assert failures(outcomes) == {
        Failure(0, "ZeroDivisionError: division by zero"),
        Failure(7, "the loss is nan"),
    }
    assert 0 <= outcomes[0].seconds < 10


def test_a_worker_that_dies_is_replaced(tmp_path):
    mark = tmp_path / "died"

    def die_once(job):  # defined here, as the workers cannot import this module
        if job == 2 and not mark.exists():
            mark.touch()
            os._exit(1)
        return 1 / job

    outcomes = [*side_by_side(die_once, [0, 1, 2, 4], workers=2)]
    assert mark.exists()
    assert values(outcomes) == {1: 1.0, 2: 0.5, 4: 0.25}
    assert failures(outcomes) == {Failure(0, "ZeroDivisionError: division by zero")}


def test_a_job_that_always_kills_its_worker_fails_and_the_others_come_through(monkeypatch):
    def outcomes(function, jobs, workers):
        for index, job in jobs:
            if job == "deadly":
                raise MemoryError("a worker\nwas killed")
            yield index, function(job), None, 0.0

    monkeypatch.setattr(module, "_outcomes", outcomes)
    found = [*side_by_side(len, ["a", "bb", "deadly", "dddd"], workers=1)]
    assert found.pop() == Failure("deadly", "its worker died: a worker was killed")
    assert values(found) == {"a": 1, "bb": 2, "dddd": 4}


def test_closing_it_early_starts_no_further_job(tmp_path):
    def touch(job):
        (tmp_path / str(job)).touch()

    outcomes = side_by_side(touch, range(200), workers=1)
    assert next(outcomes).job == 0
    outcomes.close()
    assert len([*tmp_path.iterdir()]) < 200
    assert next(outcomes, None) is None
