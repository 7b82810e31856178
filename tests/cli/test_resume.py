"""`diffstruct grow --resume` as a user meets it."""

import json
import os
import re
import shlex
import signal
import subprocess
import time

import pytest
from helpers.command import COMMAND, apart, here

from diffstruct import checkpoint
from diffstruct.paper.display import PlainLines
from diffstruct.paper.run_folder import FILES
from diffstruct.paper.run_settings import versions

pytestmark = pytest.mark.slow

SAME = ("history.csv", "events.jsonl", "importances.jsonl", "model.safetensors", "units.png")
SAVING = [
    COMMAND[0],
    "-c",
    "import os; os.fsync = lambda _: None; import diffstruct.paper.run as run; run.SAVE_EVERY = 0; "
    + COMMAND[2],
]
"""The command, saving at every measurement, which is what most kills are to hit."""


def check_same(out, whole):
    assert {path.name for path in out.iterdir()} == set(FILES)
    for name in SAME:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("options", [[], ["--revision", 3]], ids=str)
def test_a_run_that_is_killed_by_the_system_is_resumed(tmp_path, options):
    options = ["hard", "--cycles", 6_000, *options]
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert here("grow", *options, "--quiet", "--out", whole) == 0
    arguments = [*options, "--out", out]
    for rows in (30, 90):
        command = [*SAVING, "grow", *map(str, arguments), "--quiet"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        history = out / "history.csv"
        while process.poll() is None and not (
            checkpoint.latest(out / "checkpoint") and len(history.read_text().splitlines()) > rows
        ):
            time.sleep(0.01)
        process.kill()
        assert process.communicate()[1] == ""
        assert process.returncode == -signal.SIGKILL
        assert json.loads((out / "run.json").read_bytes())["status"] == "running"
        arguments = ["--resume", out]
    code, stdout, stderr = apart("grow", *arguments)
    assert (code, stderr) == (0, "")
    assert stdout.splitlines()[-1].startswith("Done: ")
    check_same(out, whole)
    code, stdout, stderr = apart("grow", *arguments)
    assert (code, stderr) == (0, "")
    assert stdout == f"the run in {out} is finished: there is nothing to go on with\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_stopped_says_how_to_go_on_and_does(tmp_path, monkeypatch, capsys, number):
    whole, out = tmp_path / "whole", tmp_path / "a run"
    assert here("grow", "hard", "--cycles", 2_000, "--quiet", "--out", whole) == 0

    def end(observer, progress):
        if 700 < progress.update < 2_000:
            signal.raise_signal(number)

    with monkeypatch.context() as patched:
        patched.setattr("diffstruct.paper.run.TELL_EVERY", 0)
        patched.setattr(PlainLines, "__call__", end)
        assert here("grow", "hard", "--cycles", 2_000, "--out", out) == 130
    stdout, stderr = capsys.readouterr()
    assert stderr == ""
    *_, stopped, advice = stdout.splitlines()
    assert stopped.startswith("Stopped early: ")
    assert advice == f"To go on with it: diffstruct grow --resume '{out}'"
    assert json.loads((out / "run.json").read_bytes())["status"] == "stopped"
    assert here(*shlex.split(advice.split("diffstruct ")[1])) == 0
    check_same(out, whole)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped before its first step."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PlainLines, "__call__", lambda *_: signal.raise_signal(signal.SIGTERM))
        assert here("grow", "easy", "--revision", 1, "--cycles", 90, "--seed", 3, "--out", out) == 130
    return out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["hard"], "reads easy, and cannot be resumed with hard"),
        (["--seed", 4], "begun with seed 3, and cannot be resumed with 4"),
        (["--seed", 0], "begun with seed 3, and cannot be resumed with 0"),
        (["--revision", 2], "begun with revision 1"),
        (["--cycles", 100], "begun with cycles 90"),
        (["--threshold", 0.1], "begun with threshold 0.05"),
        (["--price", 0.1], "begun with price None"),
        (["--reserve", 2], "begun with reserve 1"),
        (["--p-add", 0.5], "begun with p_add 0.05"),
        (["--p-delete", 0.5], "begun with p_delete 0.25"),
        (["--max-units", 3], "begun with max_units 99"),
        (["--out", "elsewhere"], "leave out --out and --overwrite"),
        (["--overwrite"], "leave out --out and --overwrite"),
    ],
)
def test_settings_that_contradict_the_runs_are_refused(stopped, capsys, arguments, says):
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    assert here("grow", *arguments, "--resume", stopped) == 2
    stdout, stderr = capsys.readouterr()
    assert (stdout, len(stderr.splitlines())) == ("", 1)
    assert says in stderr
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_settings_that_are_the_runs_are_welcome_and_other_versions_are_told_in_a_line(
    stopped, tmp_path, capsys, monkeypatch
):
    now = {**versions(), "python": "3.99"}
    monkeypatch.setattr("diffstruct.paper.run_settings.versions", lambda: now)
    out = (stopped.parent / "run").rename(tmp_path / "moved")
    same = ["easy", "--revision", 1, "--cycles", 90, "--seed", 3, "--reserve", 1, "--out", out]
    assert here("grow", *same, "--resume", out, "--quiet") == 0
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert re.fullmatch(
        r"diffstruct: the run will not go on bit for bit.*: python was \S+, is 3\.99\n", stderr
    )


def test_what_cannot_be_resumed_gives_one_line_and_exit_code_2(tmp_path, capsys):
    for arguments, says in (
        (["--resume", tmp_path / "none"], "holds no run"),
        (["--resume", tmp_path], "holds no run"),
        ([], "name what to read"),
    ):
        assert here("grow", *arguments) == 2
        stdout, stderr = capsys.readouterr()
        assert (stdout, len(stderr.splitlines())) == ("", 1)
        assert says in stderr
    assert [*os.scandir(tmp_path)] == []
