"""Medians, quartiles and tests over runs."""

import json

import numpy as np
import pytest
from helpers.results import FIXED, HARD, TRANSITION, result, summary_of
from scipy.stats import mannwhitneyu

from diffstruct.paper.reproduce.settings import Job
from diffstruct.paper.reproduce.side_by_side import Failure
from diffstruct.paper.reproduce.summary import lower, quartiles


def test_quartiles_are_interpolated_between_ranks():
    assert quartiles([3, 1, 4, 2, 10]) == {"median": 3, "q25": 2, "q75": 4}
    assert quartiles([1, 2]) == {"median": 1.5, "q25": 1.25, "q75": 1.75}
    assert quartiles([7]) == {"median": 7, "q25": 7, "q75": 7}


def test_the_test_of_learned_against_fixed_counts_pairs():
    # Of all 20 ways to put three of six ranks first, one is as extreme.
    assert lower([1, 2, 3], [4, 5, 6]) == {"u": 0, "p": pytest.approx(1 / 20)}
    assert lower([4, 5, 6], [1, 2, 3]) == {"u": 9, "p": pytest.approx(1)}
    random = np.random.default_rng(0)
    ours, theirs = random.normal(0, 1, 20).tolist(), random.normal(0.5, 1, 20).tolist()
    pairs = sum(our > their for our in ours for their in theirs)
    expected = mannwhitneyu(ours, theirs, alternative="less").pvalue
    assert lower(ours, theirs) == {"u": pairs, "p": pytest.approx(expected)}


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [2.0, 3.0]), ([1.0, 2.0], [3.0]), ([], [])])
def test_one_seed_proves_nothing(ours, theirs):
    assert lower(ours, theirs) == {"u": None, "p": None}


def test_a_summary_holds_ours_beside_the_papers():
    learned = [result(HARD, seed, loss, units=20 + seed) for seed, loss in enumerate((9, 10, 11, 12, 20))]
    fixed = [result(FIXED, seed, loss, units=10, seconds=seed) for seed, loss in enumerate((13, 14, 15))]
    summary = summary_of([*fixed, *reversed(learned)], failures=[Failure(Job(FIXED, 4, 30), "it broke")])
    assert summary["runs"] == {"asked": 30, "finished": 8, "failed": 1}
    assert summary["failures"] == [
        {"revision": 2, "task": "hard", "fixed_units": 10, "seed": 4, "error": "it broke"}
    ]
    assert summary["machines"] == ["a machine, 2 cores"]
    panel = summary["figures"]["fixed"]["2"]
    assert panel["paper"]["loss"] == 10
    assert panel["paper"]["fixed_loss"] == 14
    ours, ten, *others = panel["settings"]
    assert ours["loss"] == {"median": 11, "q25": 10, "q75": 12}
    assert ours["units"] == {"median": 22, "q25": 21, "q75": 23}
    assert ours["off_plateau"] == pytest.approx(2 / 5)
    assert ours["floor"] == pytest.approx(8.959, abs=5e-4)
    assert ours["plateau"] == pytest.approx(13.517, abs=5e-4)
    assert ten["seeds"] == 3
    assert ten["seconds"] == {"median": 1, "total": 3}
    # 20 is above all three, the other four below.
    assert ten["learned_size_is_better"]["u"] == 3
    assert [other["seeds"] for other in others] == [0, 0, 0]
    assert json.loads(json.dumps(summary)) == summary


def test_a_transition_is_summarized_phase_by_phase():
    def loss(update):
        return 9.7 if update <= 10 else 12.0 if update <= 20 else 9.8

    runs = [
        result(TRANSITION, seed, loss, units=lambda u, seed=seed: 1 + seed + (u if u <= 15 else 30 - u))
        for seed in (0, 2)
    ]
    (row,) = summary_of(runs)["figures"]["transition"]["2"]["settings"]
    assert [phase["task"] for phase in row["phases"]] == ["easy", "hard", "easy"]
    assert [phase["until"] for phase in row["phases"]] == [10, 20, 30]
    assert [phase["loss"]["median"] for phase in row["phases"]] == [9.7, 12.0, 9.8]
    assert [phase["units"]["median"] for phase in row["phases"]] == [12, 12, 2]
    assert row["units"] == {"median": 2, "q25": 1.5, "q75": 2.5}
    assert row["most_units"]["median"] == 17
    assert "off_plateau" not in row
