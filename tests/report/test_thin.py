"""What is left out of curves and samples, and what never is."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diffstruct.report.thin import evenly, thin

CURVES = arrays(
    np.float64, st.integers(0, 200), elements=st.floats(-5, 5) | st.sampled_from([np.nan, np.inf])
)


@given(CURVES, st.integers(4, 50))
def test_a_thinned_curve_has_the_ends_and_the_extremes_in_order(values, most):
    kept = thin(values, most)
    assert len(kept) <= max(most, 0)
    assert (np.diff(kept) > 0).all()
    if len(values) <= most:
        assert kept.tolist() == list(range(len(values)))
        return
    assert kept[0] == 0
    assert kept[-1] == len(values) - 1
    finite = values[np.isfinite(values)]
    if len(finite):
        left = values[kept][np.isfinite(values[kept])]
        assert (left.min(), left.max()) == (finite.min(), finite.max())


@given(st.integers(0, 10_000), st.integers(0, 40))
def test_a_peak_stays_within_its_stretch(at, most):
    values = np.zeros(10_001)
    values[at] = 1.0
    assert at in thin(values, 100 + most)


@given(arrays(np.int64, st.integers(0, 60), elements=st.integers(0, 30)), st.integers(0, 400))
def test_samples_are_kept_evenly_and_within_bounds(sizes, most):
    kept = evenly(sizes, most)
    assert (np.diff(kept) > 0).all()
    if not len(sizes):
        assert not len(kept)
        return
    assert {0, len(sizes) - 1} <= set(kept.tolist())
    assert sizes[kept].sum() <= most or len(kept) <= 2
    if sizes.sum() <= most:
        assert len(kept) == len(sizes)
    if len(kept) > 2:
        gaps = np.diff(kept)
        assert gaps.max() - gaps.min() <= 1
