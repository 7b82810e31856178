"""JSON within bounds, and files that have reached the disk when a call returns."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable
from errno import EINVAL
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any, BinaryIO

MAX_JSON = 32 * 2**20
"""Bytes of a JSON file; Python takes up to forty times that in memory for what is made to hurt."""


class Damaged(Exception):
    """A checkpoint is not as it was written; the text says how."""


def to_json(value: Any) -> bytes:
    """The one form in which a value is written.

    Raises:
        ValueError: a number is infinite or not a number.
    """
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


def from_json(raw: bytes, name: str) -> Any:
    """What `to_json` has written.

    Raises:
        Damaged: anything else, be it JSON or not: nested too deeply, long integers, a key that occurs twice.
    """
    try:
        value = json.loads(raw.decode("ascii"), parse_int=_short)
        same = to_json(value) == raw
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{name} cannot be understood ({error!s:.200})") from error
    if not same:
        raise Damaged(f"{name} is not written as diffstruct writes it")
    return value


def _short(digits: str) -> int:
    """An integer of 64 bits; the time to read others grows with the square of their length."""
    if len(digits) > 20:
        raise ValueError("an integer has more than 20 digits")
    return int(digits)


def write(path: Path, pieces: Iterable[Any]) -> dict[str, Any]:
    """Write a new file from buffers, and wait until the disk has it; return its size and checksum."""
    digest, size = sha256(), 0
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += memoryview(piece).nbytes
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def open_regular(path: Path) -> BinaryIO:
    """Open a file that is one: no link that leads elsewhere, no device without an end, no pipe.

    Raises:
        Damaged: it is something else, or not there.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise Damaged(f"{path.name} is not a regular file")
        return path.open("rb")
    except FileNotFoundError as error:
        raise Damaged(f"{path.name} is missing") from error


def size_of(file: BinaryIO) -> int:
    """The bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def memory() -> float:
    """The bytes of memory that the machine has; infinite where the system does not say."""
    if not hasattr(os, "sysconf"):
        return inf
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def read_into(file: BinaryIO, buffer: Any, digest: Any) -> None:
    """Fill a buffer of bytes from a file, and the digest with them.

    Raises:
        Damaged: the file ends before.
    """
    rest = view = memoryview(buffer)
    while rest.nbytes:
        count = file.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            raise Damaged("a file ends too early")
        rest = rest[count:]
    digest.update(view)


def sync(folder: Path) -> None:
    """Wait until the disk has the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != EINVAL:  # so say file systems, mostly those of networks, that flush no folders
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there, so that they last."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync(each.parent)


def remove(path: Path) -> None:
    """Remove a folder with what is in it, or a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
