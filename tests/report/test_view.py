"""What the page's script is given, read back."""

import json
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
from helpers.records import invented
from hypothesis import given
from hypothesis import strategies as st

from diffstruct.history import Event
from diffstruct.report import WidthRecord, WidthSample
from diffstruct.report.pack import pack_counts, pack_numbers
from diffstruct.report.view import NUMBERS, POINTS, view


def unpacked(packed):
    return np.frombuffer(b64decode(packed["bytes"]), np.dtype(f"<{packed['type']}"))


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_counts_come_back_as_they_were(values):
    assert unpacked(pack_counts(values)).tolist() == values


@pytest.mark.parametrize(("largest", "kind"), [(0, "u1"), (255, "u1"), (256, "u2"), (65_536, "u4")])
def test_counts_take_no_more_bytes_than_they_need(largest, kind):
    assert pack_counts([largest])["type"] == kind


def test_numbers_keep_seven_digits_and_what_is_none():
    values = [0.1, -3e30, None, float("inf"), 1e300]
    expected = np.array([0.1, -3e30, np.nan, np.inf, np.inf], np.float32)
    np.testing.assert_array_equal(unpacked(pack_numbers(values)), expected)


def test_a_view_says_all_that_the_record_does_and_json_can_hold_it():
    record = invented()
    shown = json.loads(json.dumps(view([record]), allow_nan=False))
    assert shown["across"] is None
    (run,) = shown["runs"]
    assert (run["title"], run["status"], run["step"], run["total"]) == ("invented", "finished", 1_000, 1_000)
    assert run["settings"] == [["seed", 0], ["price", 0.3], ["task", "invented"], ["rest", None]]
    assert run["floor"] == [[0, 0.9], [500, None], [750, 0.8]]
    assert [(cost["name"], cost["budget"]) for cost in run["cost"]] == [
        ("parameters", 2_500),
        ("multiply-adds", None),
    ]
    np.testing.assert_array_equal(unpacked(run["loss"]["steps"]), [step for step, _ in record.loss])
    events = {name: unpacked(packed).tolist() for name, packed in run["events"].items()}
    for i, event in enumerate(record.events):
        assert record.widths[events["widths"][i]].name == event.width
        got = tuple(events[name][i] for name in ("steps", "added", "sizes", "removed"))
        assert got == (event.step, event.added, event.size, len(event.removed))
    assert events["units"] == [unit for event in record.events for unit in event.removed]
    for width, given_width in zip(run["widths"], record.widths, strict=True):
        born, died = unpacked(width["born"]), unpacked(width["died"])
        samples = {name: unpacked(packed) for name, packed in width["samples"].items()}
        # Each sample is of the units that are alive after its events.
        alive = [int(((born <= count) & (died > count)).sum()) for count in samples["events"]]
        assert alive == samples["sizes"].tolist()
        values = [value for sample in given_width.samples for value in sample.importances]
        np.testing.assert_allclose(samples["values"], values, rtol=1e-6)


def test_a_view_of_a_long_run_is_bounded():
    base = invented(samples=2)
    samples = [WidthSample(step, [1.0] * 1_000, 0.3, 0) for step in range(500)]
    wide = WidthRecord("wide", "units", 1_000, "", samples)
    long = replace(base, widths=[wide], events=[], loss=[(step, float(step % 7)) for step in range(300_000)])
    (run,) = view([long])["runs"]
    assert len(unpacked(run["loss"]["steps"])) <= POINTS
    sizes = unpacked(run["widths"][0]["samples"]["sizes"])
    assert 0.9 * NUMBERS < sizes.sum() <= NUMBERS
    several = view([long] * 5)["runs"]
    assert sum(unpacked(run["widths"][0]["samples"]["sizes"]).sum() for run in several) <= NUMBERS
    assert sum(len(unpacked(run["loss"]["steps"])) for run in several) <= POINTS


def test_several_runs_come_with_quartiles_of_all_units_and_of_shared_widths():
    records = [invented(seed, names=("a", f"own{seed}"), starts=(5, 5)) for seed in range(3)]
    across = view(records)["across"]
    assert [each["name"] for each in across["sizes"]] == [None, "a"]
    assert unpacked(across["runs"]).tolist() == [3] * len(unpacked(across["steps"]))
    first, last = (unpacked(across["sizes"][0]["median"])[index] for index in (0, -1))
    ends = []
    for record in records:
        sizes = {width.name: width.start for width in record.widths}
        sizes |= {event.width: event.size for event in record.events}
        ends.append(sum(sizes.values()))
    assert (first, last) == (10, np.median(ends))


def test_units_of_all_widths_follow_blocks_that_come_and_go():
    record = replace(
        invented(),
        widths=[WidthRecord("stays", "units", 3), WidthRecord("new", "units", 4, came=10, gone=20)],
        events=[Event(12, "new", (0, 1), 0, 2), Event(15, "stays", (), 1, 4)],
        step=30,
        total_steps=None,
    )
    across = view([record, record])["across"]
    total = dict(
        zip(unpacked(across["steps"]).tolist(), unpacked(across["sizes"][0]["median"]).tolist(), strict=True)
    )
    assert [total[step] for step in (0, 9, 10, 12, 15, 19, 20, 30)] == [3, 3, 7, 5, 6, 6, 4, 4]


def test_what_is_not_finite_can_be_shown():
    record = replace(invented(), settings={"rate": float("inf")}, budget={"parameters": float("nan")})
    (run,) = json.loads(json.dumps(view([record]), allow_nan=False))["runs"]
    assert run["settings"] == [["rate", "inf"]]
    assert run["cost"][0]["budget"] is None
