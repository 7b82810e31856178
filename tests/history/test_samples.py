"""Samples: bounded, evenly spaced, and undone with all else."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diffstruct.history import History, Measurement, Sample, Spacing
from diffstruct.history import history as module


def sample(step, units=2):
    importances = {"a": np.full(units, step, np.float32)}
    return Sample(step, 0, importances, {"a": 0.3}, {"parameters": float(step)})


def sampled(decisions, **options):
    history = History(**options)
    for step in range(1, decisions + 1):
        history.sample(lambda: sample(step))  # noqa: B023
    return history


@settings(max_examples=30)
@given(st.integers(0, 5000), st.integers(1, 5))
def test_samples_are_few_and_evenly_spaced(decisions, every):
    history = sampled(decisions, sampling=Spacing(every))
    steps = [each.step for each in history.samples]
    assert steps == [*range(1, decisions + 1, history.sampling.every)]
    assert len(steps) <= 400
    if decisions > 800 * every:
        assert len(steps) >= 200


@settings(max_examples=30)
@given(st.lists(st.integers(1, 50), max_size=200), st.integers(1, 60))
def test_a_loop_that_makes_several_decisions_has_a_sample_of_the_last_if_any_was_due(chunks, every):
    history, done, expected = History(sampling=Spacing(every)), 0, []
    for several in chunks:
        assert history.sampling.until_next() == next(n for n in range(1, 61) if (done + n - 1) % every == 0)
        due = any(number % every == 0 for number in range(done, done + several))
        done += several
        history.sample(lambda: sample(done), several)  # noqa: B023
        expected += [done] if due else []
    assert [each.step for each in history.samples] == expected


def test_many_units_leave_room_for_fewer_samples(monkeypatch):
    monkeypatch.setattr(module, "NUMBERS", 1000)
    history = History()
    for step in range(1, 301):
        history.sample(lambda: sample(step, 50))  # noqa: B023
        assert sum(each.numbers for each in history.samples) <= 1000
    assert [each.step for each in history.samples] == [*range(1, 301, history.sampling.every)]
    assert len(history.samples) >= 10
    for step in range(301, 330):
        history.sample(lambda: sample(step, 5000))  # noqa: B023
    assert len(history.samples) >= 4  # of which each is more than there should be


def test_measurements_of_a_structure_are_bounded_too(monkeypatch):
    monkeypatch.setattr(module, "MEASUREMENTS", 10)
    history = History()
    for step in range(1, 100):
        history.measure(lambda: Measurement(step, 0.5, 3))  # noqa: B023
    assert [each.update for each in history.measurements] == [*range(1, 100, 16)]


@given(st.integers(0, 900), st.integers(0, 900))
@settings(max_examples=20)
def test_what_was_added_since_a_mark_goes_and_what_was_dropped_comes_back(before, after):
    history = sampled(before)
    back = history.mark()
    kept, spacing = [*history.samples], vars(history.sampling).copy()
    for step in range(after):
        history.sample(lambda: sample(step))  # noqa: B023
    back()
    assert history.samples == kept
    assert vars(history.sampling) == spacing


def test_measurements_that_were_thinned_come_back(monkeypatch):
    monkeypatch.setattr(module, "MEASUREMENTS", 10)
    history = History()
    for step in range(10):
        history.measure(lambda: Measurement(step, 0.5, 3))  # noqa: B023
    back, kept = history.mark(), [*history.measurements]
    history.measure(lambda: Measurement(10, 0.5, 3))
    assert len(history.measurements) == 6
    back()
    assert history.measurements == kept
    assert (history.measuring.every, history.measuring.seen) == (1, 10)


def test_the_last_sample_takes_the_place_of_one_of_the_same_moment():
    history = sampled(3)
    history.end(last := sample(3))
    assert [each.step for each in history.samples] == [1, 2, 3]
    assert history.samples[-1] is last
    history.end(sample(4))
    assert [each.step for each in history.samples] == [1, 2, 3, 4]


@given(st.integers(0, 10**6))
def test_a_run_of_known_length_is_not_thinned(decisions):
    every = History.of_decisions(decisions).sampling.every
    assert decisions <= every * 400
    assert every == 1 or decisions > (every - 1) * 400
