"""Medians and quartiles over runs, beside the same in plain words."""

import math
import statistics

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diffstruct.report.across import quartiles, value_at

CURVE = st.dictionaries(st.integers(0, 30), st.floats(-5, 5), min_size=1).map(
    lambda points: (np.array(sorted(points)), np.array([points[step] for step in sorted(points)]))
)
STEPS = st.sets(st.integers(0, 40), min_size=1).map(lambda steps: np.array(sorted(steps)))


def plain_value(curve, step):
    return next((value for at, value in reversed([*zip(*curve, strict=True)]) if at <= step), math.nan)


def plain_quantile(values, part):
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=4, method="inclusive")[part - 1]


@given(CURVE, STEPS)
def test_the_value_at_a_step_is_the_last_one_until_then(curve, steps):
    expected = [plain_value(curve, step) for step in steps]
    np.testing.assert_array_equal(value_at(curve, steps), expected)


@given(st.lists(st.tuples(CURVE, st.integers(0, 40)), min_size=1, max_size=5), STEPS)
def test_quartiles_are_those_of_the_runs_that_have_come_as_far(runs, steps):
    band = quartiles([curve for curve, _ in runs], [end for _, end in runs], steps)
    for i, step in enumerate(steps.tolist()):
        values = [plain_value(curve, step) for curve, end in runs if step <= end]
        values = [value for value in values if not math.isnan(value)]
        for part, row in enumerate((band.lower, band.median, band.upper), 1):
            if values:
                assert math.isclose(row[i], plain_quantile(values, part), abs_tol=1e-9)
            else:
                assert math.isnan(row[i])
