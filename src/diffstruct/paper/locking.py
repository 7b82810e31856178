"""A folder is for one process at a time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from diffstruct.errors import RunFolderError

if sys.platform != "win32":
    import fcntl

LOCKS = sys.platform != "win32"
"""Whether the system knows locks that go with the process that holds them, however it ends."""


def lock(file: TextIO, folder: Path) -> None:
    """Lock an open file of a folder until it is closed, or the process ends in whatever way.

    Where the system or the file system knows no such locks, nothing is locked.

    Raises:
        RunFolderError: it is locked already.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunFolderError(
                f"another process is at work in {folder}: wait until it has finished, or stop it, or choose "
                "another folder"
            ) from error
        except OSError:  # the file system has no locks
            return
