"""Widths under one name each, though blocks come and go."""

import numpy as np

from diffstruct.history import Event, History, Sample
from diffstruct.report.widths import WidthNow, followed


def sample(step, events, **units):
    importances = {name.replace("_", "."): np.ones(size, np.float32) for name, size in units.items()}
    return Sample(step, events, importances, dict.fromkeys(importances, 0.3), {})


def test_a_width_that_is_renamed_twice_has_one_name_and_one_that_left_another():
    # Of three blocks the first goes after step 4; one comes in front after 6; the last goes after 8.
    history = History(
        [
            Event(2, "0.up", (0,), 0, 5),
            Event(2, "1.up", (), 2, 8),
            Event(4, "blocks", (0,), 0, 2),
            Event(5, "0.up", (1, 2), 1, 7),  # the one that was 1.up
            Event(6, "blocks", (), 1, 3),
            Event(7, "0.up", (), 1, 7),  # the new one
            Event(7, "1.up", (0,), 0, 6),
            Event(8, "blocks", (2,), 0, 2),
        ],
        names=[
            (3, {"blocks": "blocks", "0.up": "1.up", "1.up": "2.up"}),
            (5, {"blocks": "blocks", "0.up": None, "1.up": "0.up", "2.up": "1.up"}),
            (8, {"blocks": "blocks", "0.up": "0.up", "1.up": "1.up"}),
        ],
        samples=[
            sample(1, 0, blocks=3, **{"0_up": 6, "1_up": 6, "2_up": 6}),
            sample(5, 3, blocks=2, **{"0_up": 8, "1_up": 6}),
            sample(7, 5, blocks=3, **{"0_up": 6, "1_up": 7, "2_up": 6}),
        ],
    )
    now = [WidthNow("blocks", "blocks", "blocks.0, blocks.1", 2)]
    now += [WidthNow("0.up", "units", "0", 7), WidthNow("1.up", "units", "1", 6)]
    widths, events = followed(history, now)
    names = ["blocks", "0.up", "1.up", "0.up (until step 4)", "2.up (until step 8)"]
    assert [each.name for each in widths] == names
    assert [(each.came, each.gone) for each in widths] == [(0, None), (6, None), (0, None), (0, 4), (0, 8)]
    assert [each.start for each in widths] == [3, 6, 6, 6, 6]
    assert [each.kind for each in widths] == ["blocks", "units", "units", "units", "units"]
    first, mine, depth = "0.up (until step 4)", "1.up", "blocks"
    assert [each.width for each in events] == [first, mine, depth, mine, depth, "0.up", mine, depth]
    assert [each.step for each in widths[2].samples] == [1, 5, 7]
    assert [len(each.importances) for each in widths[2].samples] == [6, 8, 7]
    assert [each.step for each in widths[1].samples] == [7]
    assert [each.step for each in widths[3].samples] == [1]
    assert [each.events for each in widths[4].samples] == [0, 3, 5]


def test_widths_without_events_or_samples_are_there():
    widths, events = followed(History(), [WidthNow("a", "units", "0.weight[dim 0]", 4)])
    assert [(each.name, each.start, each.samples) for each in widths] == [("a", 4, [])]
    assert events == []
