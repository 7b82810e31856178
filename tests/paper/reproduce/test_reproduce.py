"""The parts of a reproduction: what is run, what one run gives, and what the runs come to."""

import json
import math
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import mannwhitneyu

import diffstruct as ds
from diffstruct.paper.figures.bands import Band, draw, picture
from diffstruct.paper.reproduce import grid
from diffstruct.paper.reproduce.display import GridBar
from diffstruct.paper.reproduce.grid import GridProgress, estimate
from diffstruct.paper.reproduce.results import write_results
from diffstruct.paper.reproduce.runs import Failure, Result, from_record, to_record, train
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
from diffstruct.paper.reproduce.study import band
from diffstruct.paper.reproduce.summary import lower, quartiles, summarize
from diffstruct.structure.history import Measurement

HARD, FIXED, TRANSITION = Setting(2, "hard"), Setting(2, "hard", 10), Setting(2, "transition")


def result(setting, seed, loss, units=5, cycles=30, seconds=1.0):
    """A hand-made run: `loss` and `units` are numbers, or functions of the update."""
    job = Job(setting, seed, cycles)
    at = [value if callable(value) else (lambda _, value=value: value) for value in (loss, units)]
    curve = tuple(Measurement(update, float(at[0](update)), at[1](update)) for update in points(job))
    return Result(job, curve, 7, 3, seconds, "a machine, 2 cores", {"diffstruct": "0", "torch": "2"})


# What is run


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
    with pytest.raises(ds.ConfigurationError, match=says):
        jobs(panels([figure], [2]), seeds, cycles)


def test_a_choice_is_one_of_what_is_known_or_all():
    assert choose("all", FIGURES, "figure") == list(FIGURES)
    assert choose("hard", FIGURES, "figure") == ["hard"]
    with pytest.raises(ds.ConfigurationError, match=r"easy, hard, fixed, transition or all, got 'esay'"):
        choose("esay", FIGURES, "figure")


# One run


@pytest.mark.parametrize("revision", [1, 3])
def test_a_run_is_that_of_diffstruct_grow_with_the_same_seed(tmp_path, revision):
    got = train(Job(Setting(revision, "hard"), 3, 400))
    expected = ds.Run("hard", revision=revision, cycles=400, seed=3)
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


# What the runs come to


def test_quartiles_are_interpolated_between_ranks():
    assert quartiles([3, 1, 4, 2, 10]) == {"median": 3, "q25": 2, "q75": 4}
    assert quartiles([1, 2]) == {"median": 1.5, "q25": 1.25, "q75": 1.75}
    assert quartiles([7]) == {"median": 7, "q25": 7, "q75": 7}


def test_the_test_of_learned_against_fixed_counts_pairs():
    # Of all 20 ways to put three of six ranks first, one is as extreme.
    assert lower([1, 2, 3], [4, 5, 6]) == {"u": 0, "p": pytest.approx(1 / 20)}
    assert lower([4, 5, 6], [1, 2, 3]) == {"u": 9, "p": pytest.approx(1)}
    random = np.random.default_rng(0)
    ours, theirs = random.normal(0, 1, 20).tolist(), random.normal(0.5, 1, 20).tolist()
    pairs = sum(our > their for our in ours for their in theirs)
    expected = mannwhitneyu(ours, theirs, alternative="less").pvalue
    assert lower(ours, theirs) == {"u": pairs, "p": pytest.approx(expected)}


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [2.0, 3.0]), ([1.0, 2.0], [3.0]), ([], [])])
def test_one_seed_proves_nothing(ours, theirs):
    assert lower(ours, theirs) == {"u": None, "p": None}


def summary_of(results, figures=("fixed", "transition"), failures=()):
    shown = panels(figures, [2])
    return summarize(shown, jobs(shown, 5, 30), results, failures)


def test_a_summary_holds_ours_beside_the_papers():
    learned = [result(HARD, seed, loss, units=20 + seed) for seed, loss in enumerate((9, 10, 11, 12, 20))]
    fixed = [result(FIXED, seed, loss, units=10, seconds=seed) for seed, loss in enumerate((13, 14, 15))]
    summary = summary_of([*fixed, *reversed(learned)], failures=[Failure(Job(FIXED, 4, 30), "it broke")])
    assert summary["runs"] == {"asked": 30, "finished": 8, "failed": 1}
    assert summary["failures"] == [
        {"revision": 2, "task": "hard", "fixed_units": 10, "seed": 4, "error": "it broke"}
    ]
    assert summary["machines"] == ["a machine, 2 cores"]
    panel = summary["figures"]["fixed"]["2"]
    assert panel["paper"]["loss"] == 10
    assert panel["paper"]["fixed_loss"] == 14
    ours, ten, *others = panel["settings"]
    assert ours["loss"] == {"median": 11, "q25": 10, "q75": 12}
    assert ours["units"] == {"median": 22, "q25": 21, "q75": 23}
    assert ours["off_plateau"] == pytest.approx(2 / 5)
    assert ours["floor"] == pytest.approx(8.959, abs=5e-4)
    assert ours["plateau"] == pytest.approx(13.517, abs=5e-4)
    assert ten["seeds"] == 3
    assert ten["seconds"] == {"median": 1, "total": 3}
    # 20 is above all three, the other four below.
    assert ten["learned_size_is_better"]["u"] == 3
    assert [other["seeds"] for other in others] == [0, 0, 0]
    assert json.loads(json.dumps(summary)) == summary


def test_a_transition_is_summarized_phase_by_phase():
    def loss(update):
        return 9.7 if update <= 10 else 12.0 if update <= 20 else 9.8

    runs = [
        result(TRANSITION, seed, loss, units=lambda u, seed=seed: 1 + seed + (u if u <= 15 else 30 - u))
        for seed in (0, 2)
    ]
    (row,) = summary_of(runs)["figures"]["transition"]["2"]["settings"]
    assert [phase["task"] for phase in row["phases"]] == ["easy", "hard", "easy"]
    assert [phase["until"] for phase in row["phases"]] == [10, 20, 30]
    assert [phase["loss"]["median"] for phase in row["phases"]] == [9.7, 12.0, 9.8]
    assert [phase["units"]["median"] for phase in row["phases"]] == [12, 12, 2]
    assert row["units"] == {"median": 2, "q25": 1.5, "q75": 2.5}
    assert row["most_units"]["median"] == 17
    assert "off_plateau" not in row


def test_the_page_has_a_row_for_every_setting_and_phase():
    runs = [result(HARD, seed, 9.5 + seed, units=30) for seed in range(3)]
    runs += [result(FIXED, seed, 14, units=10) for seed in range(3)]
    runs += [result(TRANSITION, 0, 9.7, units=6)]
    page = write_results(summary_of(runs, FIGURES, [Failure(Job(FIXED, 4, 30), "it broke")]))
    lines = page.splitlines()
    assert "| 2 | 3 | 10.50 (10.00-11.00) | 30 (30-30) | 67% | about 10.0 | 27 | 8.96 | 13.52 |" in lines
    assert "| 2 | 10 units | 3 | 14.00 (14.00-14.00) | 10 (10-10) | 0% | 0 | 0.032 | about 14.0 |" in lines
    assert "| 2 | 27 units | 0 |  |  |  |  |  |  |" in lines
    assert "| 2 | easy, 30 updates | 1 | 9.70 (9.70-9.70) | 6 (6-6) | does not shrink | 9.61 |  |" in lines
    assert "- hard-r2-fixed10, seed 4: it broke" in lines
    assert "![Hard, revision 2](figures/hard-r2.png)" in lines
    assert "easy-r2.png" not in page  # nothing of it is finished
    for table in (block for block in page.split("\n\n") if block.startswith("|")):
        assert len({line.count("|") for line in table.splitlines()}) == 1


# Figures


def test_a_band_holds_quartiles_point_by_point():
    runs = [result(HARD, seed, lambda u, seed=seed: seed * u, units=2 * seed + 1) for seed in range(5)]
    shown = band("learned size", runs)
    assert shown.updates.tolist() == list(range(31))
    assert shown.loss[:, 10].tolist() == [10, 20, 30]
    assert shown.units[:, 10].tolist() == [3, 5, 7]


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


# Many runs


def test_time_left_goes_by_the_setting_else_by_cost():
    hard = [result(HARD, 0, 9, seconds=10), result(HARD, 1, 9, seconds=20)]
    more = [Job(HARD, seed, 30) for seed in (2, 3, 4)]
    assert estimate(more, hard, workers=1) == pytest.approx(45)
    assert estimate(more, hard, workers=2) == pytest.approx(22.5)
    assert estimate(more[:1], hard, workers=8) == pytest.approx(15)  # one job cannot be shared
    other = Job(Setting(2, "hard", 90), 0, 30)  # costs (20 + 90) / (20 + 35) = 2 hard runs
    assert estimate([other], hard, workers=1) == pytest.approx(30)
    assert estimate([], hard, workers=1) == 0
    assert estimate(more, [], workers=1) == math.inf


def test_time_left_runs_down_between_runs(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(grid.time, "perf_counter", lambda: now[0])
    progress = GridProgress([Job(HARD, seed, 30) for seed in range(3)])
    assert progress.seconds_left == math.inf
    progress.add(result(HARD, 0, 9, seconds=10))
    assert progress.seconds_left == 20
    now[0] += 15
    assert progress.seconds_left == 5
    now[0] += 15
    assert progress.seconds_left == 0


def test_the_bar_shows_runs_time_left_and_every_failure():
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=140, color_system=None)
    progress = GridProgress([Job(HARD, seed, 30) for seed in range(3)])
    with GridBar(console) as bar:
        bar(progress)
        progress.add(result(HARD, 0, 9.25, units=31, seconds=65))
        bar(progress)
        progress.add(Failure(Job(HARD, 1, 30), "the loss is nan [at] update 7"))
        bar(progress)
    shown = screen.getvalue()
    assert "0 of 3 runs" in shown
    assert "left -" in shown
    assert "1 of 3 runs" in shown
    assert "left 2:10" in shown
    assert "hard-r2 seed 0: loss 9.250, 31 units, 1:05" in shown
    assert "hard-r2 seed 1 FAILED: the loss is nan [at] update 7\n" in shown.replace("\r", "")
    assert "left 1:05" in shown


def test_workers_that_die_leave_the_other_runs_to_fresh_ones(monkeypatch):
    """The third job kills its worker whenever it runs; all others come through."""
    all_jobs = [Job(HARD, seed, 30) for seed in range(6)]
    deadly = all_jobs[2]

    def side_by_side(pending, workers):
        for job in pending:
            if job == deadly:
                raise MemoryError("a worker\nwas killed")
            yield result(HARD, job.seed, 9)

    monkeypatch.setattr(grid, "_side_by_side", side_by_side)
    outcomes = list(grid._outcomes(all_jobs, workers=1))
    assert {outcome.job for outcome in outcomes} == set(all_jobs)
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert failed == [Failure(deadly, "its worker died: a worker was killed")]


def test_settings_have_names_that_differ():
    every = {setting for panel in panels(FIGURES, (1, 2, 3)) for setting in panel.settings}
    assert len({setting.name for setting in every}) == len(every)
    assert replace(HARD, fixed_units=10).name == "hard-r2-fixed10"
    assert Panel("fixed", 3, ()).name == "fixed-r3"
