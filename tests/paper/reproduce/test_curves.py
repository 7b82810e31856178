"""What the figures draw, and that they draw it."""

import json

from helpers.results import FIXED, HARD, result

from diffstruct.paper.reproduce.curves import as_text, band, curves_of, draw_panel
from diffstruct.paper.reproduce.settings import panels

HARDS = panels(["hard", "fixed"], [2])
RUNS = [result(HARD, seed, lambda u, seed=seed: seed * u, units=2 * seed + 1) for seed in range(5)]


def test_curves_are_quartiles_point_by_point():
    curves = curves_of(HARDS, {HARD: RUNS, FIXED: []})
    assert [*curves] == ["hard-r2"]
    shown = band(HARD, curves["hard-r2"])
    assert shown.updates.tolist() == list(range(31))
    assert shown.loss[:, 10].tolist() == [10, 20, 30]
    assert shown.units[:, 10].tolist() == [3, 5, 7]


def test_figures_are_the_same_from_what_was_written():
    curves = curves_of(HARDS, {FIXED: [result(FIXED, 0, 1 / 3, 10)], HARD: RUNS})
    text = as_text(curves)
    read = json.loads(text)
    assert read == curves
    assert len(text.splitlines()) == 4  # a line a setting
    for panel in HARDS:
        pictures = draw_panel(panel, read)
        assert pictures == draw_panel(panel, curves)
        assert pictures["png"].startswith(b"\x89PNG")
        assert b"5 runs" in pictures["svg"]
    assert draw_panel(panels(["easy"], [2])[0], read) == {}
