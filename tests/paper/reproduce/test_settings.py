"""Which networks are run, and on what."""

from dataclasses import replace

import pytest
from helpers.results import HARD

from diffstruct.errors import ConfigurationError
from diffstruct.paper.reproduce.runs import train
from diffstruct.paper.reproduce.settings import (
    FIGURES,
    PAPER,
    Job,
    Panel,
    Setting,
    choose,
    ends,
    jobs,
    panels,
    phases,
    points,
)


def test_the_whole_grid_runs_each_network_once():
    every = jobs(panels(FIGURES, (1, 2, 3)), seeds=3)
    assert len(set(every)) == len(every) == 3 * 17  # 3 tasks x 3 revisions, 4 + 4 fixed sizes
    cycles = {job.setting.revision: job.cycles for job in every}
    assert cycles == {1: 300_000, 2: 300_000, 3: 100_000}
    assert [job.cost for job in every] == sorted((job.cost for job in every), reverse=True)
    assert every[0].setting.fixed_units == 100


def test_the_fixed_figure_alone_runs_the_learned_size_too_and_shares_the_fixed_sizes():
    first, second = panels(["fixed"], (1, 2))
    assert first.settings[0] == Setting(1, "hard")
    assert second.settings[0] == Setting(2, "hard")
    assert first.settings[1:] == second.settings[1:]
    assert [setting.fixed_units for setting in second.settings[1:]] == [10, 27, 50, 100]
    third = panels(["fixed"], [3])[0]
    assert [setting.fixed_units for setting in third.settings] == [None, 20, 37, 50, 100]
    assert len(jobs([first, second], seeds=1)) == 6


def test_the_shared_fixed_sizes_really_are_the_same_in_revisions_1_and_2():
    one, two = (train(Job(Setting(revision, "hard", 6), 4, 25)).curve for revision in (1, 2))
    assert one == two


@pytest.mark.parametrize(("revision", "floor"), [(1, 9.614), (2, 9.614), (3, 8.997)])
def test_the_easy_text_is_that_of_the_revision_in_transitions_too(revision, floor):
    alone = phases(Job(Setting(revision, "easy"), 0, 30))
    around = phases(Job(Setting(revision, "transition"), 0, 30))
    assert [phase.start for phase in around] == [0, 10, 20]
    for phase in (*alone, around[0], around[2]):
        assert 40 * phase.task.floor == pytest.approx(floor, abs=5e-4)
    assert 40 * around[1].task.floor == pytest.approx(8.959, abs=5e-4)


def test_a_curve_has_about_200_points_and_every_end_of_a_phase():
    job = Job(Setting(3, "transition"), 0, 100_000)
    assert ends(job) == (33_333, 66_666, 100_000)
    assert points(job)[0] == 0
    assert points(job)[-1] == 100_000
    assert {33_333, 66_666} < set(points(job))
    assert len(points(job)) == 203
    assert points(Job(HARD, 0, 3)) == (0, 1, 2, 3)


def test_every_figure_of_every_revision_has_the_papers_numbers():
    assert set(PAPER) == {(figure, revision) for figure in FIGURES for revision in (1, 2, 3)}
    assert PAPER["hard", 3].units == (37,)
    assert PAPER["transition", 1].units == (6, 21, 20)


@pytest.mark.parametrize(
    ("figure", "seeds", "cycles", "says"),
    [
        ("hard", 0, None, "seeds must be at least 1, got 0"),
        ("hard", 1, 0, "cycles must be at least 1, got 0"),
        ("transition", 1, 2, "cycles must be at least 3"),
    ],
)
def test_numbers_that_cannot_work_are_refused_before_anything_runs(figure, seeds, cycles, says):
    with pytest.raises(ConfigurationError, match=says):
        jobs(panels([figure], [2]), seeds, cycles)


def test_a_choice_is_one_of_what_is_known_or_all():
    assert choose("all", FIGURES, "figure") == list(FIGURES)
    assert choose("hard", FIGURES, "figure") == ["hard"]
    with pytest.raises(ConfigurationError, match=r"easy, hard, fixed, transition or all, got 'esay'"):
        choose("esay", FIGURES, "figure")


def test_settings_have_names_that_differ():
    every = {setting for panel in panels(FIGURES, (1, 2, 3)) for setting in panel.settings}
    assert len({setting.name for setting in every}) == len(every)
    assert replace(HARD, fixed_units=10).name == "hard-r2-fixed10"
    assert Panel("fixed", 3, ()).name == "fixed-r3"
