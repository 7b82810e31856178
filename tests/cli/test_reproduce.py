"""`diffstruct reproduce` as a user meets it: a few updates a run, but everything else for real."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from distributed import LocalCluster
from helpers.command import COMMAND, here

from diffstruct.errors import DivergenceError
from diffstruct.paper.reproduce.display import GridLines
from diffstruct.paper.reproduce.settings import Setting
from diffstruct.paper.run import fastest_trainer

pytestmark = pytest.mark.slow

SMALL = ("--figure", "hard", "--revision", "2", "--cycles", "60", "--seeds", "3")


def records(out):
    """What each run gave, without what differs from one time to the next."""
    found = {path.relative_to(out): json.loads(path.read_text()) for path in out.glob("runs/*/*.json")}
    return {str(path): {**record, "seconds": 0} for path, record in found.items()}


def reproduce(*arguments):
    """Run the command in this process; return its exit code."""
    return here("reproduce", *arguments)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Three runs in joblib's own processes, to compare with."""
    out = tmp_path_factory.mktemp("small")
    assert reproduce(*SMALL, "--jobs", 2, "--out", out) == 0
    return out


def test_one_command_makes_every_figure_table_and_summary(tmp_path, capfd):
    out = tmp_path / "deep" / "paper"
    assert reproduce("--cycles", 60, "--seeds", 2, "--jobs", 2, "--out", out) == 0
    stdout, stderr = capfd.readouterr()
    assert stderr == ""
    names = [
        f"{figure}-r{revision}" for figure in ("easy", "hard", "fixed", "transition") for revision in "123"
    ]
    assert {path.name for path in (out / "figures").iterdir()} == {
        f"{name}.{form}" for name in names for form in ("png", "svg")
    }
    summary = json.loads((out / "summary.json").read_text())
    assert summary["runs"] == {"asked": 34, "finished": 34, "failed": 0}
    assert len(records(out)) == 34
    assert len(json.loads((out / "curves.json").read_text())) == 17  # settings
    page = (out / "RESULTS.md").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert (out / link).exists()
    for name in names:
        figure, revision = name.split("-r")
        settings = summary["figures"][figure][revision]["settings"]
        assert len(settings) == (5 if figure == "fixed" else 1)
        for row in settings:
            assert row["seeds"] == 2
            mine = [
                record
                for path, record in records(out).items()
                if path.startswith(f"runs/{Setting(row['revision'], row['task'], row['fixed_units']).name}/")
            ]
            assert row["loss"]["median"] == pytest.approx(sum(record["final_loss"] for record in mine) / 2)
            assert row["units"]["median"] == sum(record["final_units"] for record in mine) / 2
            if row["fixed_units"] is not None:
                assert row["units"]["median"] == row["fixed_units"]
                assert 0 <= row["learned_size_is_better"]["p"] <= 1

    # Plain lines, since this is no terminal: one at the start, one a run, one at the end.
    lines = stdout.splitlines()
    assert len(lines) == 36
    assert all("\x1b" not in line for line in lines)
    assert lines[0] == "34 runs, none found, 2 side by side, left -"
    assert lines[-2].startswith("34 of 34  ")
    assert lines[-2].endswith("left 0:00")
    assert lines[-1].startswith("Done: 34 of 34 runs finished, 0 failed.")


def test_a_second_command_makes_only_what_is_missing_or_damaged(tmp_path, small, capsys):
    out = tmp_path / "again"
    subprocess.run(["cp", "-rp", str(small), str(out)], check=True)
    folder = out / "runs" / "hard-r2"
    kept, lost, damaged = (folder / f"seed-00{seed}.json" for seed in range(3))
    before = kept.stat().st_mtime_ns
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:1000])
    (folder / "seed-001.json.tmp").write_text("half a fi")  # what a kill may leave
    assert reproduce(*SMALL, "--jobs", 1, "--out", out) == 0
    stdout, stderr = capsys.readouterr()
    assert stderr == ""
    assert stdout.startswith("3 runs, 1 found, ")
    assert len(stdout.splitlines()) == 4
    assert kept.stat().st_mtime_ns == before
    assert records(out) == records(small)

    # More seeds and another figure go into the same folder, and need nothing made again.
    assert reproduce("--figure", "fixed", *SMALL[2:-1], 4, "--jobs", 1, "--out", out) == 0
    assert capsys.readouterr().out.startswith("20 runs, 3 found, ")
    assert kept.stat().st_mtime_ns == before
    assert json.loads((out / "summary.json").read_text())["figures"].keys() == {"fixed"}


def test_a_folder_with_runs_of_other_cycles_is_refused_and_left_alone(small, capsys):
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    assert reproduce(*SMALL[:4], "--cycles", 61, "--seeds", 3, "--out", small) == 2
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert len(stderr.splitlines()) == 1
    for hint in ("runs/hard-r2/seed-000.json", "60 cycles", "61", "--out", "--cycles 60"):
        assert hint in stderr
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_a_run_that_fails_is_reported_and_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    kind = fastest_trainer()
    original = kind.advance

    def spoiled(trainer, stretch):
        if trainer.units > 10:  # the fixed sizes of 27 units and more
            raise DivergenceError(f"the loss is nan at step {trainer.updates + 1}: the weights have diverged")
        return original(trainer, stretch)

    monkeypatch.setattr(kind, "advance", spoiled)
    arguments = ["--figure", "fixed", "--revision", 2, "--cycles", 20, "--seeds", 1, "--jobs", 1]
    arguments += ["--out", tmp_path]
    assert reproduce(*arguments) == 1
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "hard-r2-fixed27 seed 0 FAILED: the loss is nan at step 1" in shown.out
    assert "2 of 5 runs finished, 3 failed" in shown.out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["runs"] == {"asked": 5, "finished": 2, "failed": 3}
    assert [(each["fixed_units"], each["seed"]) for each in summary["failures"]] == [
        (100, 0),
        (50, 0),
        (27, 0),
    ]
    assert "hard-r2-fixed50, seed 0: the loss is nan" in (tmp_path / "RESULTS.md").read_text()
    assert len(records(tmp_path)) == 2

    monkeypatch.setattr(kind, "advance", original)  # whatever it was is mended
    assert reproduce(*arguments) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["failures"] == []


def test_a_disk_that_refuses_ends_it_with_one_line(tmp_path, monkeypatch, capsys):

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert reproduce(*SMALL, "--jobs", 1, "--out", tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left" in line
    assert str(tmp_path) in line
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def check_that_it_goes_on(arguments, out, capsys):
    """At least one run and not all are kept; the same command makes the others, and only these."""
    kept = {path: path.stat().st_mtime_ns for path in out.glob("runs/hard-r2/*.json")}
    assert 1 <= len(kept) < 8
    capsys.readouterr()
    assert reproduce(*arguments, "--jobs", 1, "--out", out) == 0
    assert capsys.readouterr().out.startswith(f"8 runs, {len(kept)} found, ")
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert json.loads((out / "summary.json").read_text())["runs"]["finished"] == 8


def check_that_it_was_told(stdout, out):
    assert "Stopped early" in stdout
    assert "goes on from here" in stdout
    kept = len([*out.glob("runs/hard-r2/*.json")])
    summary = json.loads((out / "summary.json").read_text())
    assert summary["runs"] == {"asked": 8, "finished": kept, "failed": 0}
    assert (out / "figures" / "hard-r2.svg").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stop_keeps_what_is_finished_and_the_same_command_goes_on(tmp_path, capsys, how):
    arguments = ("--figure", "hard", "--revision", "2", "--cycles", "300", "--seeds", "8")
    process = subprocess.Popen(
        [*COMMAND, "reproduce", *arguments, "--jobs", "2", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not list(tmp_path.glob("runs/hard-r2/*.json")):
        time.sleep(0.05)
    # A terminal sends Ctrl-C to the workers too.
    (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
    # Which ends once the last of its workers has ended, and let go of the pipes.
    stdout, stderr = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert (process.returncode, stderr) == (130, "")
        check_that_it_was_told(stdout, tmp_path)
    check_that_it_goes_on(arguments, tmp_path, capsys)


def test_sigterm_stops_it_as_ctrl_c_does(tmp_path, monkeypatch, capfd):
    arguments = ("--figure", "hard", "--revision", "2", "--cycles", "300", "--seeds", "8")

    def end(observer, progress):
        if progress.done == 2:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(GridLines, "__call__", end)
        assert reproduce(*arguments, "--jobs", 2, "--out", tmp_path) == 130
    stdout, stderr = capfd.readouterr()
    assert stderr == ""
    check_that_it_was_told(stdout, tmp_path)
    check_that_it_goes_on(arguments, tmp_path, capfd)


@pytest.mark.filterwarnings(
    r"ignore:Exception ignored in.*Popen:pytest.PytestUnraisableExceptionWarning"
)  # Ray's
@pytest.mark.parametrize("backend", ["ray", "dask"])
def test_a_local_cluster_gives_the_same_runs_bit_for_bit(tmp_path, small, backend, capfd):
    assert reproduce(*SMALL, "--jobs", 2, "--backend", backend, "--out", tmp_path) == 0
    stdout, stderr = capfd.readouterr()
    assert stderr == ""
    assert stdout.startswith("3 runs, none found, 2 side by side")
    assert records(tmp_path) == records(small)


def test_dask_runs_on_the_cluster_that_the_environment_names(tmp_path, small, monkeypatch, capsys):
    # Its workers are threads of this process, but reached by TCP, as those of any cluster.
    options = {"protocol": "tcp", "processes": False, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(n_workers=1, **options) as cluster:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
        assert reproduce(*SMALL, "--backend", "dask", "--out", tmp_path) == 0
    stdout, stderr = capsys.readouterr()
    assert stderr == ""
    assert stdout.startswith("3 runs, none found, 1 side by side")
    assert records(tmp_path) == records(small)


@pytest.mark.parametrize(("backend", "module"), [("ray", "ray"), ("dask", "distributed")])
def test_a_missing_extra_names_its_install_command(tmp_path, monkeypatch, capsys, backend, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert reproduce(*SMALL, "--backend", backend, "--out", tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"pip install 'diffstruct[{backend}]'" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--figure", "esay"], "easy, hard, fixed, transition or all"),
        (["--revision", "4"], "1, 2, 3 or all"),
        (["--seeds", "0"], "seeds"),
        (["--cycles", "0"], "cycles"),
        (["--cycles", "2"], "at least 3"),
        (["--jobs", "0"], "jobs"),
        (["--backend", "threads"], "loky, ray, dask"),
        (["--out", "/dev/null/runs"], "/dev/null/runs"),
    ],
)
def test_bad_input_gives_one_clear_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert reproduce(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("diffstruct: ")
    assert says in line


def test_a_cluster_that_does_not_answer_is_named_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert reproduce(*SMALL, "--backend", "ray", "--out", tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "RAY_ADDRESS='127.0.0.1:1'" in line
    assert "refused" in line


def test_help_names_every_choice_and_what_the_folder_holds(capsys):
    assert reproduce("--help") == 0
    stdout = capsys.readouterr().out
    for choice in ("easy", "hard", "fixed", "transition", "loky", "ray", "dask", "RAY_ADDRESS", "130"):
        assert choice in stdout
    for option in ("--revision", "--seeds", "--cycles", "--jobs", "--out"):
        assert option in stdout
    for file in ("RESULTS.md", "summary.json", "curves.json", "figures/"):
        assert file in stdout
