"""A folder of numbered checkpoints: which there are, who may add one, and which have had their time.

What is being written or removed has a name with a dot in front, and gets or loses its number in one step, so
that what has a number is whole. What has such a name while nobody holds the lock, a killed process has left.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffstruct.checkpoint.files import remove, sync
from diffstruct.errors import CheckpointError

MANIFEST = "manifest.json"

_NUMBER = re.compile("[0-9]{6,}")
_SAVING, _REMOVED = ".saving-", ".removed-"


def number_of(path: Path) -> int | None:
    """The number that is a checkpoint's name; None where the user has given it another name."""
    return int(path.name) if _NUMBER.fullmatch(path.name) else None


def numbered(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    if not folder.is_dir():
        return []
    with os.scandir(
        folder
    ) as entries:  # which looks once: the newest may be gone a moment later, for a newer
        found = [Path(each.path) for each in entries if _NUMBER.fullmatch(each.name) and each.is_dir()]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the one process that saves in this folder; the lock goes when the process does, however it ends.

    Raises:
        CheckpointError: another process is that one.
    """
    try:
        import fcntl
    except ImportError as error:
        raise CheckpointError("saving needs the file locks of Linux or macOS; loading does not") from error
    with (folder / ".lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                f"another process is saving to {folder} right now: give each run a folder of its own, or let "
                "one of its processes save"
            ) from error
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough where a child was forked meanwhile


def clear(folder: Path) -> None:
    """Remove what killed processes have left; for who holds the lock."""
    for path in [*folder.iterdir()]:
        if path.name.startswith((_SAVING, _REMOVED)):
            remove(path)


def next_number(folder: Path) -> tuple[Path, Path]:
    """Where the next checkpoint is written, and the name that it gets when it is whole."""
    taken = [number_of(path) or 0 for path in folder.iterdir()]
    name = f"{max(taken, default=0) + 1:06}"
    return folder / f"{_SAVING}{name}", folder / name


def prune(folder: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep`; for who holds the lock."""
    # Without a manifest it is something of the user's that has a number for a name.
    old = [path for path in numbered(folder)[keep:] if (path / MANIFEST).exists()]
    gone = [path.rename(folder / f"{_REMOVED}{path.name}") for path in old]
    if gone:
        sync(folder)  # or else a number could come back after a power cut, and what it stood for not
    for path in gone:
        remove(path)
