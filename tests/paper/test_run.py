"""Runs inside a process: what an observer sees, and what is left when something goes wrong."""

import json
import math

import pytest
import torch
from helpers.command import here
from rich.console import Console
from safetensors.torch import load_file

from diffstruct.errors import DivergenceError, RunFolderError
from diffstruct.paper import Run
from diffstruct.paper.compiled.trainer import FusedTrainer
from diffstruct.paper.display import PlainLines, chart, duration
from diffstruct.paper.revisions import get_revision
from diffstruct.paper.run_folder import RunFolder
from diffstruct.paper.tasks import Phase, easy, hard, windows
from diffstruct.paper.training import Trainer


def start(cycles=400):
    return Run(easy(length=2_000), cycles=cycles)


def test_the_observer_sees_the_run_advance(tmp_path):
    seen = []
    run = start()
    run.go(tmp_path, observe=lambda progress: seen.append((progress.update, progress.seconds_left)))
    updates = [update for update, _ in seen]
    assert updates == sorted(updates)
    assert updates[-1] == 400
    assert seen[-1][1] == 0


def test_tasks_files_and_schedules_are_known_by_their_names(tmp_path):
    text = tmp_path / "poem.txt"
    text.write_text("to be or not to be " * 9)
    phases = (Phase(0, easy()), Phase(1, hard()))
    names = [Run(task, cycles=3).name for task in ("hard", "transition", text, str(text), hard(4), phases)]
    assert names == ["hard", "transition", "poem", "poem", "hard", "easy-hard"]


def test_a_transition_reads_easy_hard_easy(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("diffstruct.paper.run.TELL_EVERY", 0)
    lines = PlainLines(Console(width=200))
    Run("transition", cycles=600).go(tmp_path, observe=lines)
    shown = capsys.readouterr().out.splitlines()
    floors = {int(line.split()[1].replace(",", "")): line.split("floor ")[1].split()[0] for line in shown}
    assert floors[0] == floors[180] == floors[600] == "9.614"
    assert floors[210] == floors[390] == "8.959"


@pytest.fixture(params=[Trainer, FusedTrainer])
def trainer_class(request, monkeypatch):
    """Each test that asks for it runs with either training loop."""
    monkeypatch.setattr("diffstruct.paper.run.fastest_trainer", lambda: request.param)
    return request.param


def test_a_run_that_is_told_to_stop_stops_where_it_is(tmp_path, monkeypatch, trainer_class):
    monkeypatch.setattr("diffstruct.paper.run.TELL_EVERY", 0)
    run = start()

    def stop_at_124(progress):
        if progress.update == 124:
            run.stop()

    summary = run.go(tmp_path, observe=stop_at_124)
    assert (summary["status"], summary["cycles"]) == ("stopped", 124)
    assert (tmp_path / "history.csv").read_text().splitlines()[-1].startswith("124,")


def break_at(monkeypatch, step, value=float("nan")):
    """From `step` on, let an entry of the readout be spoiled before the loss is taken."""
    for trainer_class in (Trainer, FusedTrainer):
        original = trainer_class.advance

        def spoiled(trainer, stretch, original=original):
            if trainer.updates >= step:
                with torch.no_grad():
                    trainer.model.readout.bias[0] = value
            return original(trainer, stretch)

        monkeypatch.setattr(trainer_class, "advance", spoiled)


def test_without_numba_the_ordinary_loop_trains(tmp_path, monkeypatch):
    monkeypatch.setattr("diffstruct.nn.kernels.available", False)
    run = start()
    assert type(run.trainer) is Trainer
    assert run.go(tmp_path)["status"] == "finished"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(
    tmp_path, monkeypatch, trainer_class, value
):
    break_at(monkeypatch, 250, value)
    with pytest.raises(DivergenceError, match="step 251") as caught:
        start().go(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    summary = json.loads((tmp_path / "run.json").read_text())
    assert summary["status"] == "diverged"
    assert summary["cycles"] == 250
    weights = load_file(tmp_path / "model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())
    assert weights["rnn.weight_hh_l0"].shape[0] >= 1
    assert (tmp_path / "units.png").exists()


def test_the_command_line_reports_a_divergence_in_one_line(tmp_path, monkeypatch, capsys, trainer_class):
    break_at(monkeypatch, 20)
    assert here("grow", "easy", "--cycles", 50, "--quiet", "--out", tmp_path) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "nan at step 21" in captured.err


def test_a_disk_that_refuses_gives_an_error_of_ours_and_leaves_whole_files(tmp_path, monkeypatch):
    with RunFolder(tmp_path) as folder:
        folder.save({"status": "running"}, {"w": torch.zeros(2)})

        def full(source, target):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.replace", full)
        with pytest.raises(RunFolderError, match="No space left"):
            folder.save({"status": "finished"}, {"w": torch.ones(2)})
    assert json.loads((tmp_path / "run.json").read_text()) == {"status": "running"}
    assert load_file(tmp_path / "model.safetensors")["w"].tolist() == [0, 0]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_run_that_is_killed_leaves_its_logs_readable(tmp_path, monkeypatch):
    """What is on disk before the run has closed anything."""
    run = start(cycles=200)
    lines = []

    class Killed(BaseException):
        pass

    def look(progress):
        lines.append((tmp_path / "history.csv").read_text().splitlines())
        if progress.update > 100:
            raise Killed

    monkeypatch.setattr("diffstruct.paper.run.TELL_EVERY", 0)
    with pytest.raises(Killed):
        run.go(tmp_path, observe=look)
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "running"
    assert len(lines[-1]) >= 100
    assert lines[-1][-1].split(",")[0] == str(len(lines[-1]) - 2)  # header, and a row for cycle 0


def test_revision_3_starts_its_average_like_the_others_but_forgets_faster():
    smoothed = {}
    for number in (2, 3):
        trainer = Trainer(get_revision(number), 4, 0)
        assert trainer.smoothed == pytest.approx(40 * math.log(4))
        window = next(windows((Phase(0, hard()),), torch.Generator().manual_seed(0)))
        loss = trainer.update(window)
        smoothed[number] = (40 * math.log(4) - trainer.smoothed) / (40 * math.log(4) - loss)
    assert smoothed[2] == pytest.approx(0.001)
    assert smoothed[3] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00"), (65, "1:05"), (7384, "2:03:04"), (math.inf, "-")]
)
def test_durations_read_like_a_clock(seconds, shown):
    assert duration(seconds) == shown


def test_the_chart_keeps_its_width_and_its_order():
    assert chart([1, 2, 4, 8], width=4) == "▂▃▅█"
    long = chart([float(i) for i in range(1000)], width=60)
    assert len(long) == 60
    assert list(long) == sorted(long)


def test_plain_lines_are_few(tmp_path):
    console = Console(record=True, width=200, file=(tmp_path / "log").open("w"))
    run = start(cycles=300)
    run.go(tmp_path / "run", observe=PlainLines(console))
    lines = console.export_text().splitlines()
    assert 1 <= len(lines) <= 22
    console.file.close()
