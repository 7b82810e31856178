"""How kernels are compiled, and where the compiled code is kept."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import numba
import numba.extending

from diffstruct.nn.kernels.sources import file_hash, implement, sources

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS: dict[str, Any] = {
    "error_model": "numpy",  # a division by zero is infinite, not an error: no branch, so it vectorises
    "fastmath": {"contract"},  # multiply-add in one instruction; no reordering
}


def _cache() -> Path:
    """Where compiled code is kept: `NUMBA_CACHE_DIR` if it is set, else the user's cache."""
    usual = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    for base in filter(None, (numba.config.CACHE_DIR, os.path.join(usual, "diffstruct"))):
        folder = Path(base)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="diffstruct-"))  # for this process alone


_CACHE = _cache()


def compiled(function: F) -> F:
    """Compile `function` at its first call for each combination of types, and keep the result on disk.

    It is kept in a folder named for all its `sources` and for this file, which has the options.
    """
    assert isinstance(function, FunctionType)
    found = sorted(sources(function) | {file_hash(__file__)})
    name = hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_CACHE / name)
    try:
        result: F = numba.njit(cache=True, nogil=True, **OPTIONS)(function)
    finally:
        numba.config.CACHE_DIR = before
    return result


def overload(function: Callable[..., Any]) -> Callable[[F], F]:
    """`numba.extending.overload` with the options of all kernels, so that those who call `function` notice a
    change of the implementation.
    """

    def decorate(choose: F) -> F:
        assert isinstance(choose, FunctionType)
        implement(function, choose)
        result: F = numba.extending.overload(function, jit_options=OPTIONS)(choose)
        return result

    return decorate
