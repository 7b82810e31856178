"""`diffstruct grow` as a user meets it."""

import csv
import json
import os
import signal
import subprocess
import time

import pytest
from helpers.command import COMMAND, apart, here
from safetensors.torch import load_file

from diffstruct.paper.display import PlainLines

pytestmark = pytest.mark.slow

FILES = {"run.json", "history.csv", "events.jsonl", "importances.jsonl", "model.safetensors", "units.png"}
EASY = ("grow", "easy", "--cycles", 900, "--seed", 3)


def read_history(folder):
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    """The folder and the standard output of a run in a process of its own."""
    out = tmp_path_factory.mktemp("deep") / "deeper" / "run"
    code, stdout, stderr = apart(*EASY, "--out", out)
    assert (code, stderr) == (0, "")
    return out, stdout


def test_a_run_leaves_a_folder_whose_parts_agree(easy):
    out, stdout = easy
    assert {path.name for path in out.iterdir()} == FILES

    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "finished"
    assert (run["task"], run["revision"], run["seed"], run["cycles"]) == ("easy", None, 3, 900)
    assert run["floor"] == pytest.approx(9.614, abs=5e-4)
    assert run["seconds"] > 0
    assert {"diffstruct", "torch", "numpy", "python"} <= set(run["versions"])

    history = read_history(out)
    assert list(history[0]) == ["cycle", "loss", "units"]
    cycles = [int(row["cycle"]) for row in history]
    assert cycles[0] == 0
    assert cycles[-1] == 900
    assert cycles == sorted(set(cycles))
    assert float(history[0]["loss"]) == pytest.approx(55.452, abs=5e-4)
    assert float(history[-1]["loss"]) == pytest.approx(run["final_loss"], abs=1e-5)

    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    size = 1
    for event in events:
        assert [*event] == ["update", "width", "removed", "added", "size", "cost"]
        assert (event["cost"] is None) == (not event["removed"])
        size += event["added"] - len(event["removed"])
        assert event["size"] == size
    assert any(event["removed"] for event in events)
    assert size == run["final_units"] == int(history[-1]["units"])
    weights = load_file(out / "model.safetensors")
    assert weights["rnn.weight_hh_l0"].shape == (size, size)
    assert (out / "units.png").read_bytes().startswith(b"\x89PNG")

    # Plain lines, since this is no terminal: each a whole state, no control codes.
    lines = stdout.splitlines()
    assert all("\x1b" not in line for line in lines)
    assert "floor 9.614" in lines[0]
    assert lines[-1].startswith(f"Done: {size} units")


def test_the_same_seed_gives_the_same_record(tmp_path, capsys, easy):
    assert here(*EASY, "--quiet", "--out", tmp_path) == 0
    assert capsys.readouterr() == ("", "")
    for file in ("history.csv", "events.jsonl", "model.safetensors"):
        assert (tmp_path / file).read_bytes() == (easy[0] / file).read_bytes()


@pytest.mark.parametrize("revision", [1, 2, 3])
def test_each_revision_runs_on_a_text_of_the_users_own(tmp_path, monkeypatch, capsys, revision):
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "poem.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 5)
    assert here("grow", text, "--revision", revision, "--cycles", 60, "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    run = json.loads((tmp_path / "runs" / f"poem-r{revision}-s0" / "run.json").read_text())
    assert run["task"] == "poem"
    assert run["floor"] is None
    assert run["revision"] == revision


def test_a_folder_that_holds_a_run_is_refused_unless_told_otherwise(tmp_path, capsys):
    out = tmp_path / "run"
    assert here("grow", "easy", "--cycles", 5, "--out", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert here("grow", "easy", "--cycles", 6, "--out", out) == 2
    stderr = capsys.readouterr().err
    assert "already holds a run" in stderr
    assert "--overwrite" in stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert here("grow", "easy", "--cycles", 6, "--out", out, "--overwrite") == 0
    assert json.loads((out / "run.json").read_text())["cycles"] == 6


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "one_symbol.txt").write_text("a" * 100)
    (tmp_path / "short.txt").write_text("ab" * 20)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00" * 50)
    (tmp_path / "folder.txt").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["esay"], "easy, hard or transition"),
        (["empty.txt"], "41 characters"),
        (["one_symbol.txt"], "two distinct symbols"),
        (["short.txt"], "41 characters"),
        (["binary.txt"], "UTF-8"),
        (["folder.txt"], "directory"),
        (["easy", "--threshold", "0"], "threshold"),
        (["easy", "--threshold", "nan"], "threshold"),
        (["easy", "--revision", "2", "--threshold", "0.02"], "floor of the price"),
        (["easy", "--p-add", "1.1"], "p_add"),
        (["easy", "--p-delete", "-0.1"], "p_delete"),
        (["easy", "--revision", "2", "--reserve", "99"], "reserve"),
        (["easy", "--reserve", "256"], "reserve"),
        (["easy", "--reserve", "1.5"], "reserve"),
        (["easy", "--reserve", "few"], "reserve"),
        (["easy", "--max-units", "0"], "max_units"),
        (["easy", "--revision", "4"], "revision"),
        (["easy", "--cycles", "0"], "cycles"),
        (["transition", "--cycles", "2"], "cycles"),
        (["easy", "--seed", "-1"], "seed"),
        (["easy", "--out", "/dev/null/run"], "run folder"),
        (["easy", "--out", "short.txt"], "run folder"),
    ],
)
def test_bad_input_gives_one_clear_line_and_exit_code_2(texts, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(texts)
    assert here("grow", *arguments) == 2
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert len(stderr.splitlines()) == 1
    assert stderr.startswith("diffstruct: ")
    assert says in stderr


def test_an_unknown_option_gives_exit_code_2_and_no_traceback():
    code, _, stderr = apart("grow", "easy", "--colour", "red")
    assert code == 2
    assert "Traceback" not in stderr


def check_that_all_is_saved(out):
    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "stopped"
    assert 1000 <= run["cycles"] < 1_000_000
    assert int(read_history(out)[-1]["cycle"]) == run["cycles"]
    units = load_file(out / "model.safetensors")["rnn.weight_hh_l0"].shape[0]
    assert units == run["final_units"]
    assert {path.name for path in out.iterdir()} == FILES | {"checkpoint"}


def test_ctrl_c_saves_everything_so_far(tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*COMMAND, "grow", "hard", "--cycles", "1000000", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    history = out / "history.csv"
    while process.poll() is None:  # until it has learned for a while
        if history.exists() and len(history.read_text().splitlines()) >= 3:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "")
    assert "Stopped early" in stdout
    check_that_all_is_saved(out)


def test_sigterm_saves_everything_so_far(tmp_path, monkeypatch, capsys):
    def end(observer, progress):
        if progress.update > 1000:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(PlainLines, "__call__", end)
    assert here("grow", "hard", "--cycles", 1_000_000, "--out", tmp_path) == 130
    stdout, stderr = capsys.readouterr()
    assert stderr == ""
    assert stdout.startswith("Stopped early")
    check_that_all_is_saved(tmp_path)


def test_help_names_every_task_option_and_file(capsys):
    assert here("grow", "--help") == 0
    stdout = capsys.readouterr().out
    for word in (
        "easy",
        "hard",
        "transition",
        "--revision",
        "--cycles",
        "--seed",
        "--out",
        "--resume",
        "--quiet",
    ):
        assert word in stdout
    for file in FILES:
        assert file in stdout
    assert here("--version") == 0
    assert capsys.readouterr().out.startswith("diffstruct ")
