"""The moving averages of slopes, against loops, and how they follow units that come and go."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diffstruct.criteria import importance
from diffstruct.criteria.importance import LARGEST_CONDITIONAL

SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=50)
@given(
    seed=SEEDS,
    size=st.integers(1, 6),
    updates=st.integers(1, 12),
    rate=st.floats(0.05, 1),
    predictions=st.floats(0.1, 1e3),
)
def test_the_moving_averages_by_loops(seed, size, updates, rate, predictions):
    """All that two units have seen together counts alike, until there is more of it than the memory holds."""
    chance = np.random.default_rng(seed)
    square, line, mean, same_mean = np.zeros((size, size)), np.zeros(size), np.zeros(size), np.zeros(size)
    expected, ages = np.zeros((size, size)), chance.integers(0, 9, size)
    expected_mean = np.zeros(size)
    for _ in range(updates):
        slopes = chance.standard_normal(size)
        ages += 1
        importance.update_averages(square, mean, slopes, predictions, ages, rate)
        importance.update_averages(line, same_mean, slopes, predictions, ages, rate)
        for i in range(size):
            weight = max(rate, 1 / ages[i])
            expected_mean[i] = (1 - weight) * expected_mean[i] + weight * slopes[i]
            for j in range(size):
                weight = max(rate, 1 / min(ages[i], ages[j]))
                expected[i, j] = (1 - weight) * expected[i, j] + weight * predictions * slopes[i] * slopes[j]
    np.testing.assert_allclose(square, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(line, np.diag(expected), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(mean, same_mean)
    np.testing.assert_array_equal(importance.diagonal(square), np.diag(square))
    np.testing.assert_array_equal(importance.diagonal(line), line)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, size=st.integers(1, 6), predictions=st.floats(0.1, 1e3))
def test_one_observation_has_no_curvature_to_the_bit(seed, size, predictions):
    """What rounding leaves of it would be taken for curvature where nothing has been won yet."""
    slopes = np.random.default_rng(seed).standard_normal(size)
    fisher, mean = np.zeros((size, size)), np.zeros(size)
    importance.update_averages(fisher, mean, slopes, predictions, np.ones(size, np.int64), 0.1)
    assert not importance.centred(fisher, mean, predictions).any()


def test_all_observations_of_new_units_count_alike():
    fisher, mean, slopes = (
        np.zeros((2, 2)),
        np.zeros(2),
        np.array([[1.0, 2.0], [3.0, -1.0], [5.0, 0.5], [-2.0, 4.0]]),
    )
    for age, each in enumerate(slopes, 1):
        importance.update_averages(fisher, mean, each, 10, np.array([age, age]), 0.01)
    np.testing.assert_allclose(fisher, 10 * slopes.T @ slopes / 4)
    np.testing.assert_allclose(mean, slopes.mean(0))
    centred = importance.centred(fisher, mean, 10)
    np.testing.assert_allclose(centred, 10 * np.cov(slopes.T, ddof=0))
    line = importance.centred(importance.diagonal(fisher), mean, 10)
    np.testing.assert_allclose(line, 10 * slopes.var(0))


@settings(deadline=None, max_examples=25)
@given(
    seed=SEEDS,
    size=st.integers(1, 8) | st.integers(LARGEST_CONDITIONAL - 3, LARGEST_CONDITIONAL + 3),
    share=st.floats(0, 1),
    add=st.sampled_from([0, 1, 5, LARGEST_CONDITIONAL]),
)
def test_survivors_keep_their_averages(seed, size, share, add):
    chance = np.random.default_rng(seed)
    keep = np.flatnonzero(chance.random(size) < share)
    slopes = chance.standard_normal((3, size))
    full = slopes.T @ slopes
    square = importance.resize_averages(full, np.arange(size), 0)  # `[n]` where it is large
    assert square.ndim == (2 if size <= LARGEST_CONDITIONAL else 1)
    after, new = importance.resize_averages(square, keep, add), len(keep) + add
    assert after.shape == ((new, new) if new <= LARGEST_CONDITIONAL else (new,))
    np.testing.assert_array_equal(importance.diagonal(after), [*np.diag(full)[keep], *np.zeros(add)])
    if after.ndim == 2:
        pairs = full[np.ix_(keep, keep)] if square.ndim == 2 else np.diag(np.diag(full)[keep])
        np.testing.assert_array_equal(after[: len(keep), : len(keep)], pairs)
        assert not after[len(keep) :].any()
        assert not after[:, len(keep) :].any()
