"""Saving is all or nothing, whatever disks, other processes and signals do."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import torch

import diffstruct as ds
from diffstruct.checkpoint import content, folder

NOBODY = 65534
"""A user without rights."""


def names(path):
    """What lies in a folder of checkpoints, but the lock."""
    return sorted(each.name for each in path.iterdir() if each.name != ".lock")


def test_the_last_checkpoints_are_kept_and_numbers_go_on(tmp_path):
    paths = [ds.checkpoint.save(tmp_path / "a" / "b", keep=2, step=step) for step in range(5)]
    assert names(tmp_path / "a" / "b") == ["000004", "000005"]
    assert ds.checkpoint.latest(tmp_path / "a" / "b") == paths[-1]
    assert ds.checkpoint.load(tmp_path / "a" / "b") == {"step": 4}
    assert ds.checkpoint.load(str(paths[-2])) == {"step": 3}


def test_numbers_may_have_more_than_six_digits(tmp_path):
    path = ds.checkpoint.save(tmp_path, step=1)
    saved = content.Content({"step": content.Saved("value", 2)})
    saved.write(tmp_path / "999999", 999_999)
    assert ds.checkpoint.save(tmp_path, step=3).name == "1000000"
    assert ds.checkpoint.load(tmp_path) == {"step": 3}
    assert path.exists()


def test_what_else_lies_in_the_folder_stays(tmp_path):
    (tmp_path / "202401").mkdir()
    (tmp_path / "202401" / "data").write_text("mine")
    (tmp_path / "000000").write_text("a file")
    for _ in range(3):
        ds.checkpoint.save(tmp_path, keep=1, step=1)
    assert names(tmp_path) == ["000000", "202401", "202404"]


def test_at_least_one_checkpoint_is_kept(tmp_path):
    with pytest.raises(ds.ConfigurationError, match="keep=0"):
        ds.checkpoint.save(tmp_path, keep=0)


def test_a_checkpoint_holds_no_checkpoints(tmp_path):
    path = ds.checkpoint.save(tmp_path, step=1)
    with pytest.raises(ds.CheckpointError, match="is a checkpoint itself"):
        ds.checkpoint.save(path, step=2)


def test_where_there_is_no_checkpoint_the_folder_is_named(tmp_path):
    assert ds.checkpoint.latest(tmp_path / "none") is None
    for folder_ in (tmp_path, tmp_path / "none"):
        with pytest.raises(ds.CheckpointError, match=f"there is no checkpoint in {folder_}"):
            ds.checkpoint.load(folder_)


def test_a_copy_of_a_checkpoint_under_a_name_of_ones_own_is_loaded(tmp_path):
    ds.checkpoint.save(tmp_path, step=1).rename(tmp_path / "best")
    assert ds.checkpoint.load(tmp_path / "best") == {"step": 1}


def fails_after(count, error):
    """A `write` that raises at its call number `count`."""
    calls = iter(range(count + 1))

    def write(path, pieces, write=content.write):
        if next(calls) == count:
            path.write_bytes(b"half")
            raise error
        return write(path, pieces)

    return write


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_disk_that_fails_leaves_the_checkpoints_that_there_were(count, error, tmp_path, monkeypatch):
    ds.checkpoint.save(tmp_path, keep=1, step=1)
    monkeypatch.setattr(content, "write", fails_after(count, error))
    with pytest.raises((ds.CheckpointError, KeyboardInterrupt)) as raised:
        ds.checkpoint.save(tmp_path, keep=1, step=2)
    if isinstance(error, OSError):
        assert "No space left on device. Make room there, or choose a folder" in str(raised.value)
    monkeypatch.undo()
    assert names(tmp_path) == ["000001"]
    assert ds.checkpoint.load(tmp_path) == {"step": 1}
    assert ds.checkpoint.save(tmp_path, keep=1, step=2).name == "000002"


def test_a_file_that_the_system_does_not_let_grow_is_such_a_disk(tmp_path):
    ds.checkpoint.save(tmp_path, weights=torch.ones(10))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ds.CheckpointError, match=f"cannot save to {tmp_path}: File too large"):
            ds.checkpoint.save(tmp_path, weights=torch.ones(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["000001"]
    assert ds.checkpoint.load(tmp_path)["weights"].sum() == 10


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ds.CheckpointError, match="Not a directory"):
        ds.checkpoint.save(tmp_path / "file" / "run", step=1)


@pytest.fixture
def folder_of_a_user(tmp_path):
    """A folder of whoever runs the test; for root, whom nothing stops, of a user who has no rights."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp())  # those above `tmp_path` are root's alone
    os.chown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield path
    finally:
        os.seteuid(0)
        shutil.rmtree(path)


def test_a_read_only_folder_is_named(folder_of_a_user):
    ds.checkpoint.save(folder_of_a_user, step=1)
    folder_of_a_user.chmod(0o555)
    try:
        with pytest.raises(ds.CheckpointError, match="Permission denied"):
            ds.checkpoint.save(folder_of_a_user, step=2)
        assert ds.checkpoint.load(folder_of_a_user) == {"step": 1}
    finally:
        folder_of_a_user.chmod(0o755)


def test_an_old_checkpoint_that_cannot_be_removed_is_no_loss(tmp_path, monkeypatch):
    ds.checkpoint.save(tmp_path, keep=1, step=1)

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folder, "remove", refuse)
    with pytest.raises(
        ds.CheckpointError, match="000002 is saved and whole, but those before it cannot be rem"
    ):
        ds.checkpoint.save(tmp_path, keep=1, step=2)
    monkeypatch.undo()
    assert ds.checkpoint.load(tmp_path) == {"step": 2}
    ds.checkpoint.save(tmp_path, keep=1, step=3)
    assert names(tmp_path) == ["000003"]


def test_files_and_folder_have_reached_the_disk_before_old_ones_go(tmp_path, monkeypatch):
    log = []
    fsync, rename = os.fsync, type(tmp_path).rename
    monkeypatch.setattr(
        os, "fsync", lambda fd: (log.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1]
    )
    monkeypatch.setattr(
        type(tmp_path), "rename", lambda self, to: (log.append(f"{self} -> {to.name}"), rename(self, to))[1]
    )
    ds.checkpoint.save(tmp_path / "new", keep=1, step=1)
    ds.checkpoint.save(tmp_path / "new", keep=1, step=2)
    here = f"{tmp_path}/new"
    once = [
        *(f"{here}/.saving-00000N/{name}" for name in ("tree.json", "tensors.safetensors", "manifest.json")),
        *(f"{here}/.saving-00000N", f"{here}/.saving-00000N -> 00000N", here),
    ]
    first, second = ([each.replace("N", number) for each in once] for number in "12")
    assert log == [str(tmp_path), *first, *second, f"{here}/000001 -> .removed-000001", here]


@pytest.mark.parametrize(("number", "refused"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_file_systems_that_flush_no_folders_will_do_and_failing_disks_will_not(
    number, refused, tmp_path, monkeypatch
):
    def fsync(descriptor, fsync=os.fsync):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, "no")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ds.CheckpointError, match="cannot save") if refused else nullcontext():
        ds.checkpoint.save(tmp_path, step=1)
    assert names(tmp_path) == ([] if refused else ["000001"])


@pytest.mark.slow
def test_only_one_process_saves_to_a_folder(tmp_path):
    ds.checkpoint.save(tmp_path, step=1)
    code = f"""
import sys, pathlib
from diffstruct.checkpoint.folder import locked
with locked(pathlib.Path({str(tmp_path)!r})):
    print("locked", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ds.CheckpointError, match=r"another process is saving to .* right now"):
            ds.checkpoint.save(tmp_path, step=2)
        assert ds.checkpoint.load(tmp_path) == {"step": 1}
        other.kill()  # the lock goes with it
    assert ds.checkpoint.save(tmp_path, step=2).name == "000002"


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_that_was_forked_while_saving_does_not_keep_the_lock(tmp_path):
    stop = get_context("fork").Event()
    with folder.locked(tmp_path):
        child = get_context("fork").Process(target=stop.wait)
        child.start()
    try:
        ds.checkpoint.save(tmp_path, step=1)
    finally:
        stop.set()
        child.join()


def test_without_file_locks_nothing_is_saved(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(ds.CheckpointError, match="the file locks of Linux or macOS"):
        ds.checkpoint.save(tmp_path, step=1)


@pytest.mark.slow
def test_a_reader_sees_whole_checkpoints_only_while_others_are_saved_and_removed(tmp_path):
    ds.checkpoint.save(tmp_path, keep=1, step=0, weights=np.zeros(1000))
    done, seen = Event(), []

    def save():
        for step in range(1, 60):
            ds.checkpoint.save(tmp_path, keep=1, step=step, weights=np.full(1000, float(step)))
        done.set()

    thread = Thread(target=save)
    thread.start()
    while not done.is_set():
        values = ds.checkpoint.load(tmp_path)
        assert (values["weights"] == values["step"]).all()
        seen.append(values["step"])
    thread.join()
    assert seen == sorted(seen)
    assert len(set(seen)) > 3


def save_all_the_time(path, first, told):
    """Save until killed, and tell of each save that is done."""
    for step in range(first, 10**6):
        ds.checkpoint.save(path, keep=2, step=step, weights=np.full(100_000, float(step)))
        told.send(step)


def kill_while_saving(path, rounds, rng):
    """Kill a process that saves, again and again; return how often it was in the middle of it."""
    interrupted = last = 0
    for _ in range(rounds):
        heard, told = get_context("fork").Pipe(duplex=False)
        saver = get_context("fork").Process(target=save_all_the_time, args=(path, last + 1, told))
        saver.start()
        told.close()
        done = heard.recv()
        time.sleep(rng.uniform(0, 0.05))
        saver.kill()
        saver.join()
        with suppress(EOFError):
            while True:
                done = heard.recv()
        interrupted += any(name.startswith(".") for name in names(path))
        values = ds.checkpoint.load(path)
        assert (values["weights"] == values["step"]).all()
        assert values["step"] in (done, done + 1)  # what save has returned from is there
        last = values["step"]
        assert len([name for name in names(path) if not name.startswith(".")]) in (1, 2, 3)
    ds.checkpoint.save(path, keep=2, step=0)
    assert len(names(path)) == 2
    return interrupted


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_process_that_is_killed_while_it_saves_leaves_the_last_whole_checkpoint(tmp_path):
    assert kill_while_saving(tmp_path, 20, random.Random(0)) > 0
