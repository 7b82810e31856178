"""How kernels are compiled, and where what was compiled is kept."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS: dict[str, Any] = {
    "error_model": "numpy",  # a division by zero is infinite, not an error: no branch, so it vectorises
    "fastmath": {"contract"},  # multiply-add in one instruction; no reordering
}

_PACKAGE = Path(__file__).parents[2]


def _sources() -> str:
    """A name for the present state of everything that is compiled."""
    files = [
        *sorted(_PACKAGE.rglob("*.py")),
    ]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _folder() -> Path:
    """Where compiled code is kept: `NUMBA_CACHE_DIR` if it is set, else the user's cache.

    With a part of its own for each state of the sources. By itself Numba compiles a function anew when that
    function's own file has changed, but not when that of another one has, which it calls.
    """
    usual = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    for base in filter(None, (numba.config.CACHE_DIR, os.path.join(usual, "diffstruct"))):
        folder = Path(base) / _sources()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="diffstruct-"))  # kept for this process alone


_FOLDER = str(_folder())


def compiled(function: F) -> F:
    """Compile `function` at its first call for each combination of types, and keep the result on disk."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = _FOLDER
    try:
        result: F = numba.njit(cache=True, nogil=True, **OPTIONS)(function)
    finally:
        numba.config.CACHE_DIR = before
    return result
