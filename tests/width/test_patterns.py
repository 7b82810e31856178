"""Options by patterns of names."""

import pytest

import diffstruct as ds
from diffstruct.width.patterns import by_name, check_patterns, chosen

NAMES = ["encoder.0", "encoder.1", "head"]


def test_the_first_pattern_that_matches_decides():
    assert by_name({"encoder.*": 3, "*": 5}, NAMES, 1, "start") == {"encoder.0": 3, "encoder.1": 3, "head": 5}
    assert by_name({"head": 3}, NAMES, 1, "start") == {"encoder.0": 1, "encoder.1": 1, "head": 3}
    assert by_name(7, NAMES, 1, "start") == dict.fromkeys(NAMES, 7)


def test_a_value_for_no_width_is_refused():
    with pytest.raises(ds.ConfigurationError, match=r"start has a value for 'decoder', but .*'head'"):
        by_name({"decoder": 3}, NAMES, 1, "start")


def test_a_pattern_for_no_width_is_refused_unless_it_means_all():
    check_patterns(["*"], [], "include")
    check_patterns(["enc*", "head"], NAMES, "include")
    with pytest.raises(ds.ConfigurationError, match=r"exclude has 'decoder', but .*'head'"):
        check_patterns(["head", "decoder"], NAMES, "exclude")


def test_exclude_wins_over_include():
    assert [name for name in NAMES if chosen(name, ["*"], ["*.1"])] == ["encoder.0", "head"]
    assert [name for name in NAMES if chosen(name, ["encoder.*"], ["*.1"])] == ["encoder.0"]
