"""Reading the files of a run folder, of a run that is over or still going on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from diffstruct.errors import RunFolderError

T = TypeVar("T")


def read_bytes(path: Path) -> bytes:
    """What is in a file of a run folder.

    Raises:
        RunFolderError: it is missing, or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        what = f"{path.parent} holds no run" if not path.parent.is_dir() else f"there is no {path.name} there"
        raise RunFolderError(f"cannot read the run in {path.parent}: {what}") from error
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror or error}") from error


def read_summary(folder: Path) -> dict[str, Any]:
    """What `run.json` says.

    Raises:
        RunFolderError: it is missing, or damaged.
    """
    path = folder / "run.json"
    try:
        told = json.loads(read_bytes(path))
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged: {error}") from error
    if not isinstance(told, dict):
        raise RunFolderError(f"{path} is damaged: it says nothing of a run")
    return told


def read_lines(path: Path, parse: Callable[[str], T], skip: int = 0) -> list[T]:
    """The lines of a log, each as `parse` returns it; not the last one, if it is only half written.

    Args:
        path: of the log.
        parse: raises a `ValueError`, `KeyError` or `TypeError` of a line that is damaged.
        skip: so many lines at the beginning.

    Raises:
        RunFolderError: the log is missing, or a line of it is damaged.
    """
    found = []
    whole = read_bytes(path).rpartition(b"\n")[0]
    for number, line in enumerate(whole.split(b"\n") if whole else (), start=1):
        if number <= skip:
            continue
        try:
            found.append(parse(line.decode()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunFolderError(
                f"{path} is damaged in line {number} ({type(error).__name__}: {error})"
            ) from error
    return found
