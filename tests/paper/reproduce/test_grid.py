"""The time that is left."""

import math

import pytest
from helpers.results import HARD, result

from diffstruct.paper.reproduce import grid
from diffstruct.paper.reproduce.grid import GridProgress, estimate
from diffstruct.paper.reproduce.settings import Job, Setting


def test_time_left_goes_by_the_setting_else_by_cost():
    hard = [result(HARD, 0, 9, seconds=10), result(HARD, 1, 9, seconds=20)]
    more = [Job(HARD, seed, 30) for seed in (2, 3, 4)]
    assert estimate(more, hard, workers=1) == pytest.approx(45)
    assert estimate(more, hard, workers=2) == pytest.approx(22.5)
    assert estimate(more[:1], hard, workers=8) == pytest.approx(15)  # one job cannot be shared
    other = Job(Setting(2, "hard", 90), 0, 30)  # costs (20 + 90) / (20 + 35) = 2 hard runs
    assert estimate([other], hard, workers=1) == pytest.approx(30)
    assert estimate([], hard, workers=1) == 0
    assert estimate(more, [], workers=1) == math.inf


def test_time_left_runs_down_between_runs(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(grid.time, "perf_counter", lambda: now[0])
    progress = GridProgress([Job(HARD, seed, 30) for seed in range(3)])
    assert progress.seconds_left == math.inf
    progress.add(result(HARD, 0, 9, seconds=10))
    assert progress.seconds_left == 20
    now[0] += 15
    assert progress.seconds_left == 5
    now[0] += 15
    assert progress.seconds_left == 0
