"""The command line as a user meets it: in a process of its own."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

COMMAND = [sys.executable, "-c", "from diffstruct.cli import main; main()"]
FILES = {"run.json", "history.csv", "events.jsonl", "model.safetensors", "units.png"}


def diffstruct(*arguments, cwd=None):
    """Run the command; return exit code, standard output and standard error."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=cwd
    )
    return done.returncode, done.stdout, done.stderr


def read_history(folder):
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_a_folder_whose_parts_agree(tmp_path):
    out = tmp_path / "deep" / "run"
    arguments = "--revision", 2, "--cycles", 900, "--seed", 3, "--out", out
    code, stdout, stderr = diffstruct("grow", "easy", *arguments)
    assert (code, stderr) == (0, "")
    assert {path.name for path in out.iterdir()} == FILES

    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "finished"
    assert (run["task"], run["revision"], run["seed"], run["cycles"]) == ("easy", 2, 3, 900)
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
        size += event["added"] - len(event["removed"])
        assert event["size"] == size
    assert size == run["final_units"] == int(history[-1]["units"])
    weights = load_file(out / "model.safetensors")
    assert weights["rnn.weight_hh_l0"].shape == (size, size)
    assert (out / "units.png").read_bytes().startswith(b"\x89PNG")

    # Plain lines, since this is no terminal: each a whole state, no control codes.
    lines = stdout.splitlines()
    assert all("\x1b" not in line for line in lines)
    assert "floor 9.614" in lines[0]
    assert lines[-1].startswith(f"Done: {size} units")


def test_the_same_seed_gives_the_same_record(tmp_path):
    for name in ("a", "b"):
        assert diffstruct("grow", "hard", "--cycles", 300, "--quiet", "--out", tmp_path / name)[0] == 0
    for file in ("history.csv", "events.jsonl", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("revision", [1, 3])
def test_each_revision_runs_on_a_text_of_the_users_own(tmp_path, revision):
    text = tmp_path / "poem.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 5)
    code, stdout, stderr = diffstruct(
        "grow", text, "--revision", revision, "--cycles", 60, "--quiet", cwd=tmp_path
    )
    assert (code, stdout, stderr) == (0, "", "")
    run = json.loads((tmp_path / "runs" / f"poem-r{revision}-s0" / "run.json").read_text())
    assert run["task"] == "poem"
    assert run["floor"] is None
    assert run["revision"] == revision


def test_a_folder_that_holds_a_run_is_refused_unless_told_otherwise(tmp_path):
    out = tmp_path / "run"
    assert diffstruct("grow", "easy", "--cycles", 5, "--out", out)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    code, _, stderr = diffstruct("grow", "easy", "--cycles", 6, "--out", out)
    assert code == 2
    assert "already holds a run" in stderr
    assert "--overwrite" in stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert diffstruct("grow", "easy", "--cycles", 6, "--out", out, "--overwrite")[0] == 0
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
def test_bad_input_gives_one_clear_line_and_exit_code_2(texts, arguments, says):
    code, stdout, stderr = diffstruct("grow", *arguments, cwd=texts)
    assert code == 2
    assert stdout == ""
    assert len(stderr.splitlines()) == 1
    assert stderr.startswith("diffstruct: ")
    assert says in stderr


def test_an_unknown_option_gives_exit_code_2_and_no_traceback():
    code, _, stderr = diffstruct("grow", "easy", "--colour", "red")
    assert code == 2
    assert "Traceback" not in stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_saves_everything_so_far(tmp_path, how):
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*COMMAND, "grow", "hard", "--cycles", "1000000", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    history = out / "history.csv"
    for _ in range(600):  # until it has learned for a while
        if history.exists() and len(history.read_text().splitlines()) >= 3:
            break
        time.sleep(0.1)
    process.send_signal(how)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "")
    assert "Stopped early" in stdout
    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "stopped"
    assert 1000 <= run["cycles"] < 1_000_000
    assert int(read_history(out)[-1]["cycle"]) == run["cycles"]
    units = load_file(out / "model.safetensors")["rnn.weight_hh_l0"].shape[0]
    assert units == run["final_units"]
    assert {path.name for path in out.iterdir()} == FILES


def test_help_names_every_task_option_and_file():
    code, stdout, _ = diffstruct("grow", "--help")
    assert code == 0
    for word in ("easy", "hard", "transition", "--revision", "--cycles", "--seed", "--out", "--quiet"):
        assert word in stdout
    for file in FILES:
        assert file in stdout
    assert diffstruct("--version")[1].startswith("diffstruct ")
