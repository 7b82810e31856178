"""One run, and its record."""

import json
import math

import pytest
from helpers.results import HARD, result

from diffstruct.paper import Run
from diffstruct.paper.reproduce.runs import from_record, to_record, train
from diffstruct.paper.reproduce.settings import Job, Setting
from diffstruct.structure import Measurement


@pytest.mark.parametrize("revision", [1, 3])
def test_a_run_is_that_of_diffstruct_grow_with_the_same_seed(tmp_path, revision):
    got = train(Job(Setting(revision, "hard"), 3, 400))
    expected = Run("hard", revision=revision, cycles=400, seed=3)
    summary = expected.go(tmp_path)
    assert (got.last.loss, got.last.units) == (summary["final_loss"], summary["final_units"])
    assert (got.added, got.removed) == (expected.history.added(), expected.history.removed())
    assert got.last.units == 1 + got.added - got.removed
    assert got.curve[0] == Measurement(0, 40 * math.log(4), 1)
    assert got.seconds > 0


def test_a_record_gives_back_its_result_bit_for_bit():
    made = train(Job(Setting(3, "hard", 4), 1, 20))
    assert from_record(json.loads(json.dumps(to_record(made)))) == made


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.pop("curve"),
        lambda record: record["curve"]["cycle"].pop(),
        lambda record: record["curve"]["loss"].pop(),
        lambda record: record["curve"]["loss"].__setitem__(3, float("nan")),
        lambda record: record["curve"]["loss"].__setitem__(3, None),
        lambda record: record["curve"]["units"].__setitem__(3, 0),
        lambda record: record.update(cycles=29),
        lambda record: record.update(revision=[2]),
        lambda record: record.update(versions=None),
    ],
)
def test_a_record_that_is_not_whole_is_refused(damage):
    record = to_record(result(HARD, 0, 9.5))
    assert from_record(record) == result(HARD, 0, 9.5)
    damage(record)
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_record(record)
