"""Figures of many runs."""

import numpy as np
from helpers.results import HARD, TRANSITION

from diffstruct.paper.figures.bands import Band, draw, picture
from diffstruct.paper.reproduce.settings import Job, phases


def some_band(label, top=60.0):
    updates = np.arange(0, 301)
    loss = 10 + (top - 10) * np.exp(-updates / 3)
    return Band(label, updates, np.stack([loss - 0.5, loss, loss + 0.5]), np.full((3, 301), 7.0))


def test_a_figure_shows_what_settles_and_names_every_line():
    read = phases(Job(TRANSITION, 0, 300))
    figure = draw("title", [some_band("learned size"), some_band("10 units", 90)], read)
    loss, units = figure.axes
    bottom, top = loss.get_ylim()
    assert bottom < 8.959
    assert 10.5 < top < 16  # not the fall from 90
    names = [text.get_text() for text in loss.get_legend().get_texts()]
    assert names == ["learned size", "10 units", "floor", "plateau"]
    assert units.get_ylim()[0] == 0
    switches = [line for line in loss.get_lines() if len(set(line.get_xdata())) == 1]
    assert [line.get_xdata()[0] for line in switches] == [100, 200]


def test_the_same_figure_gives_the_same_files():
    read = phases(Job(HARD, 0, 300))
    for form, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        first, second = (picture(draw("t", [some_band("a")], read, units=False), form) for _ in range(2))
        assert first == second
        assert first.startswith(start)
