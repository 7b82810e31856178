"""Runs that are interrupted and resumed come out as if they had not been; what cannot be resumed says why."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from diffstruct import checkpoint
from diffstruct.errors import (
    ConfigurationError,
    DataError,
    DivergenceError,
    ResumeWarning,
    RunFolderError,
)
from diffstruct.paper import Run
from diffstruct.paper.compiled.trainer import FusedTrainer
from diffstruct.paper.revisions import get_revision
from diffstruct.paper.run_folder import FILES, STATE, RunFolder
from diffstruct.paper.tasks import easy
from diffstruct.paper.training import Trainer
from diffstruct.rule import Rule

pytestmark = pytest.mark.slow

SAME = ("history.csv", "events.jsonl", "importances.jsonl", "model.safetensors", "units.png")


CYCLES = 60


class Killed(BaseException):
    """Ends a run as a SIGKILL would: nothing after it is written."""


@pytest.fixture(autouse=True)
def saves_and_tells_all_the_time(monkeypatch):
    monkeypatch.setattr("diffstruct.paper.run.SAVE_EVERY", 0)
    monkeypatch.setattr("diffstruct.paper.run.TELL_EVERY", 0)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # which takes most of the time


def kill_at(step):
    def observe(progress):
        if progress.update >= step:
            raise Killed

    return observe


def killed(folder, step, task="easy", **options):
    """The folder of a run that was killed at a step."""
    with pytest.raises(Killed):
        Run(task, **{"cycles": CYCLES, **options}).go(folder, observe=kill_at(step))
    return folder


def check_same(folder, whole):
    assert {path.name for path in folder.iterdir()} == set(FILES)
    for name in SAME:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    summaries = [json.loads((each / "run.json").read_bytes()) for each in (folder, whole)]
    assert [summary.pop("seconds") > 0 for summary in summaries] == [True, True]
    assert summaries[0] == summaries[1]


@pytest.mark.parametrize("trainer", [Trainer, FusedTrainer])
@pytest.mark.parametrize("revision", [None, 1, 2, 3])
def test_a_run_that_is_killed_again_and_again_comes_out_the_same(tmp_path, monkeypatch, revision, trainer):
    monkeypatch.setattr("diffstruct.paper.run.fastest_trainer", lambda: trainer)
    rule = replace(get_revision(revision).rule, p_add=0.5, p_delete=0.5)  # sizes change all the time
    options = {"revision": revision, "cycles": 120, "seed": 1, "rule": rule}
    whole, folder = tmp_path / "whole", tmp_path / "run"
    Run("transition", **options).go(whole)
    assert len((whole / "events.jsonl").read_text().splitlines()) >= 4
    killed(folder, 11, "transition", **options)
    before = 11
    for step in (12, 40, 41, 95):
        run = Run.resume(folder)
        assert run.progress.update == before
        before = step
        with pytest.raises(Killed):
            run.go(observe=kill_at(step))
    assert Run.resume(folder).go()["status"] == "finished"
    check_same(folder, whole)


@pytest.mark.parametrize("revision", [None, 2])
def test_a_run_that_was_stopped_between_two_rows_comes_out_the_same(tmp_path, monkeypatch, revision):
    whole, folder = tmp_path / "whole", tmp_path / "run"
    Run("hard", revision=revision, cycles=1_200).go(whole)  # a row at every 6th step
    monkeypatch.setattr("diffstruct.paper.run.fastest_trainer", lambda: Stepping)
    run = Run("hard", revision=revision, cycles=1_200)
    summary = run.go(folder, observe=lambda progress: progress.update >= 613 and run.stop())
    assert (summary["status"], summary["cycles"]) == ("stopped", 613)
    monkeypatch.undo()
    assert (folder / "history.csv").read_text().splitlines()[-1].startswith("613,")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResumeWarning)  # the loop has another name, and the same bits
        run = Run.resume(folder)
    assert run.progress.update == 613
    run.go()
    check_same(folder, whole)


class Stepping(FusedTrainer):
    """Looks up after every step."""

    stride = 1


def test_what_was_logged_after_the_checkpoint_is_cut_off_even_half_a_line(tmp_path):
    whole, folder = tmp_path / "whole", killed(tmp_path / "run", 45)
    Run("easy", cycles=CYCLES).go(whole)
    for name, torn in (("history.csv", "46,54.2,9\n47,5"), ("events.jsonl", '{"update": 46, "wid')):
        with (folder / name).open("a") as file:
            file.write(torn)
    Run.resume(folder).go()
    check_same(folder, whole)


def test_logs_that_have_lost_their_end_are_whole_again(tmp_path):
    whole, folder = tmp_path / "whole", killed(tmp_path / "run", 45)
    Run("easy", cycles=CYCLES).go(whole)
    (folder / "history.csv").write_text("cycle,lo")
    (folder / "events.jsonl").unlink()
    (folder / "run.json").write_text("{")
    Run.resume(folder).go()
    check_same(folder, whole)


def test_resuming_alone_changes_nothing(tmp_path):
    folder = killed(tmp_path, 40)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    run = Run.resume(folder)
    assert run.resumed
    run.close()
    assert (run.name, run.seed, run.progress.update, run.progress.cycles) == ("easy", 0, 40, 60)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_damaged_checkpoint_is_refused_and_the_one_before_leads_to_the_same_end(tmp_path):
    whole, folder = tmp_path / "whole", killed(tmp_path / "run", 40)
    Run("easy", cycles=CYCLES).go(whole)
    newest = checkpoint.latest(folder / STATE)
    tensors = newest / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(RunFolderError, match=f"remove {newest}") as caught:
        Run.resume(folder)
    assert "\n" not in str(caught.value)
    shutil.rmtree(newest)
    run = Run.resume(folder)
    assert run.progress.update == 39
    run.go()
    check_same(folder, whole)
    assert checkpoint.latest(folder / STATE) is None


@pytest.mark.parametrize("name", ["manifest.json", "tree.json", "tensors.safetensors"])
def test_a_checkpoint_that_lost_its_end_is_refused(tmp_path, name):
    folder = killed(tmp_path, 0)  # in which there is one checkpoint
    file = checkpoint.latest(folder / STATE) / name
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(RunFolderError, match=r"damaged.*begin anew with --overwrite"):
        Run.resume(folder)
    Run("easy", cycles=5).go(folder, overwrite=True)


def saved_with(folder, **changes):
    """Change what the checkpoint of a run holds, as nobody but another version would."""
    state = checkpoint.load(folder / STATE)
    shutil.rmtree(folder / STATE)
    checkpoint.save(folder / STATE, **{**state, **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 1}, "another version"),
        ({"settings": {}}, "is no run"),
        ({"reader": {}}, "is no run"),
        ({"trainer": {}}, "is no run"),
        ({"made_with": 3}, "is no run"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, changes, says):
    folder = killed(tmp_path, 30)
    saved_with(folder, **changes)
    with pytest.raises(RunFolderError, match=says) as caught:
        Run.resume(folder)
    assert "\n" not in str(caught.value)


def test_memory_that_compiled_code_would_read_beyond_is_refused(tmp_path):
    folder = killed(tmp_path, 30)
    trainer = checkpoint.load(folder / STATE)["trainer"]
    saved_with(folder, trainer={**trainer, "hidden": trainer["hidden"][:, :0]})
    with pytest.raises(Exception, match="expected a tensor of shape"):
        Run.resume(folder)
    for entries in trainer["optimizer"]["state"].values():
        entries["exp_avg"] = entries["exp_avg"].flatten()[:1]
    saved_with(folder, trainer=trainer)
    with pytest.raises(Exception, match="expected a tensor of shape"):
        Run.resume(folder)


def test_other_versions_and_another_loop_are_warned_of(tmp_path, monkeypatch):
    folder = killed(tmp_path, 30)
    made = checkpoint.load(folder / STATE)["made_with"]
    saved_with(folder, made_with={**made, "torch": "2.0"})
    with pytest.warns(ResumeWarning, match=r"torch was 2\.0, is "):
        Run.resume(folder).close()
    monkeypatch.setattr("diffstruct.paper.run.fastest_trainer", lambda: Trainer)
    saved_with(folder, made_with=made)
    with pytest.warns(ResumeWarning, match="loop was FusedTrainer, is Trainer") as caught:
        run = Run.resume(folder)
    assert [Path(warning.filename).name for warning in caught] == ["test_resume.py"]
    assert run.go()["status"] == "finished"


def test_a_finished_run_says_so_and_loses_the_checkpoint_that_it_was_killed_before_removing(tmp_path):
    folder = killed(tmp_path, 50, cycles=60)
    shutil.copytree(folder / STATE, tmp_path / "kept")
    Run.resume(folder).go()
    with pytest.raises(RunFolderError, match="finished: there is nothing to go on with"):
        Run.resume(folder)
    (tmp_path / "kept").rename(folder / STATE)
    with pytest.raises(RunFolderError, match="finished: there is nothing to go on with"):
        Run.resume(folder)
    assert {path.name for path in folder.iterdir()} == set(FILES)


def test_a_run_that_diverged_says_so(tmp_path, monkeypatch):
    def diverge(trainer, window):
        raise DivergenceError("the loss is nan at step 1")

    monkeypatch.setattr("diffstruct.paper.run.fastest_trainer", lambda: Trainer)
    monkeypatch.setattr(Trainer, "update", diverge)
    with pytest.raises(DivergenceError):
        Run("easy", cycles=50).go(tmp_path)
    with pytest.raises(RunFolderError, match="has diverged, and would again"):
        Run.resume(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


def test_a_run_that_diverges_keeps_the_same_good_state_after_an_interruption(tmp_path, monkeypatch):
    def spoil(trainer, stretch, advance=FusedTrainer.advance):
        if trainer.updates >= 50:
            trainer.model.readout.bias.data[0] = float("nan")
        advance(trainer, stretch)

    monkeypatch.setattr(FusedTrainer, "advance", spoil)
    with pytest.raises(DivergenceError):
        Run("easy", cycles=CYCLES).go(tmp_path / "whole")
    folder = killed(tmp_path / "run", 49)
    with pytest.raises(DivergenceError, match=f"last good state is in {folder}"):
        Run.resume(folder).go()
    check_same(folder, tmp_path / "whole")


def test_folders_without_anything_to_go_on_with_are_refused(tmp_path):
    with pytest.raises(RunFolderError, match="holds no run"):
        Run.resume(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    Run("easy", cycles=5).go(tmp_path / "old")
    summary = json.loads((tmp_path / "old" / "run.json").read_bytes())
    (tmp_path / "old" / "run.json").write_text(json.dumps({**summary, "status": "stopped"}))
    with pytest.raises(RunFolderError, match=r"no checkpoint.*begin anew with --overwrite"):
        Run.resume(tmp_path / "old")


def test_a_folder_is_for_one_process_at_a_time(tmp_path):
    refusals = []

    def others(progress):
        if progress.update == 50:  # when all is over
            return
        for other in (
            lambda: Run.resume(tmp_path),
            lambda: Run("easy", cycles=5).go(tmp_path, overwrite=True),
        ):
            with pytest.raises(RunFolderError, match="another process is at work"):
                other()
            refusals.append(progress.update)

    Run("easy", cycles=50).go(tmp_path, observe=others)
    assert len(refusals) >= 4
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 52


def test_a_resumed_run_is_locked_from_the_first_and_free_after_it(tmp_path):
    folder = killed(tmp_path, 20, cycles=50)
    run = Run.resume(folder)
    with pytest.raises(RunFolderError, match="another process is at work"):
        Run.resume(folder)
    assert run.go()["status"] == "finished"
    RunFolder(folder, overwrite=True).close()


def test_an_error_in_resuming_leaves_no_lock(tmp_path):
    folder = killed(tmp_path, 20, cycles=50)
    with pytest.raises(ConfigurationError) as kept:  # whose traceback holds on to what was opened
        Run.resume(folder, seed=7)
    assert kept.value.__traceback__ is not None
    assert Run.resume(folder).go()["status"] == "finished"


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        ({"seed": 1}, "seed 0"),
        ({"cycles": 100}, "cycles 50"),
        ({"revision": 1}, "revision 2"),
        ({"reserve": 2}, "reserve 1"),
        ({"max_units": 12}, "max_units 99"),
        ({"threshold": 0.2}, r"threshold 0\.05"),
        ({"price": 0.3}, "price None"),
        ({"task": "hard"}, "reads easy, and cannot be resumed with hard"),
        ({"task": easy(length=2_000)}, "reads easy, and cannot be resumed with easy"),
    ],
)
def test_other_settings_than_the_runs_are_refused(tmp_path, expected, says):
    folder = killed(tmp_path, 20, revision=2, cycles=50)
    with pytest.raises(ConfigurationError, match=says):
        Run.resume(folder, **expected)


def test_the_same_settings_are_welcome(tmp_path):
    folder = killed(tmp_path, 20, seed=3, rule=Rule(p_add=0.5))
    run = Run.resume(folder, "easy", seed=3, cycles=CYCLES, p_add=0.5, price=0.3, revision=None)
    run.close()
    assert run.settings.rule.p_add == 0.5
    assert run.settings.rule.threshold is None


def test_a_resumed_run_stays_in_its_folder(tmp_path):
    run = Run.resume(killed(tmp_path / "run", 20, cycles=50))
    with pytest.raises(ConfigurationError, match="stays in"):
        run.go(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(ConfigurationError, match="in which folder"):
        Run("easy", cycles=5).go()


TEXT = "the quick brown fox jumps over the lazy dog\n" * 20


def test_a_text_that_has_changed_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = Path("fox.txt")
    text.write_text(TEXT)
    folder = killed(tmp_path / "run", 20, text)
    for changed in (TEXT[1:] + "t", TEXT + "x", TEXT.replace("fox", "cat")):
        text.write_text(changed)
        with pytest.raises(DataError, match=r"the text in '.*fox.txt' is not what the run has read"):
            Run.resume(folder)
    text.write_text(TEXT)
    monkeypatch.chdir(tmp_path.parent)
    assert Run.resume(folder).go()["task"] == "fox"


def test_a_text_that_has_moved_is_read_where_it_is(tmp_path):
    text = tmp_path / "fox.txt"
    text.write_text(TEXT)
    folder = killed(tmp_path / "run", 20, text)
    moved = text.rename(tmp_path / "moved.txt")
    with pytest.raises(DataError, match=r"fox.txt' back, or name the file where it is now"):
        Run.resume(folder)
    assert Run.resume(folder, moved).go()["task"] == "fox"


def test_a_task_made_in_python_has_to_be_made_again(tmp_path):
    folder = killed(tmp_path / "run", 20, easy(length=2_000))
    Run(easy(length=2_000), cycles=CYCLES).go(tmp_path / "whole")
    with pytest.raises(ConfigurationError, match="made in Python"):
        Run.resume(folder)
    for other in (easy(length=2_001), easy(p=0.5, length=2_000)):
        with pytest.raises(DataError, match="not what the run has read"):
            Run.resume(folder, other)
    Run.resume(folder, easy(length=2_000)).go()
    check_same(folder, tmp_path / "whole")


def test_overwriting_removes_the_checkpoint_first(tmp_path, monkeypatch):
    folder = killed(tmp_path, 20)

    def kill(folder):
        raise Killed

    monkeypatch.setattr(RunFolder, "_begin_logs", kill)
    with pytest.raises(Killed):
        Run("hard", cycles=5).go(folder, overwrite=True)
    assert not (folder / STATE).exists()
    with pytest.raises(RunFolderError, match="no checkpoint"):
        Run.resume(folder)


def test_a_disk_that_fills_up_ends_the_run_which_goes_on_when_there_is_room(tmp_path, monkeypatch):
    whole, folder = tmp_path / "whole", tmp_path / "run"
    Run("easy", cycles=CYCLES).go(whole)
    with monkeypatch.context() as patched:
        saved = []

        def fills_up(descriptor):
            saved.append(descriptor)
            if len(saved) > 100:
                raise OSError(28, "No space left on device")

        patched.setattr("os.fsync", fills_up)
        with pytest.raises(RunFolderError, match="No space left on device"):
            Run("easy", cycles=CYCLES).go(folder)
    run = Run.resume(folder)
    assert 0 < run.progress.update < CYCLES
    run.go()
    check_same(folder, whole)
