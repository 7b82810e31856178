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
from numba.core.caching import FunctionCache
from numba.core.sigutils import normalize_signature

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


class _Checked(FunctionCache):  # type: ignore[misc]
    """Numba's cache on disk, which does not take code for some types for that for others.

    Its files are numbered. Two processes that compile a function for different types at the same time may
    give theirs the same number, and what the index says of it is then true of one of them alone.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The code for these types, or None: it is compiled then, and written over what was there."""
        found = super().load_overload(sig, target_context)
        alike = found is not None and found.signature.args == tuple(normalize_signature(sig)[0])
        return found if alike else None


def compiled(function: F) -> F:
    """Compile `function` at its first call for each combination of types, and keep the result on disk.

    It is kept in a folder named for all its `sources` and for this file, which has the options.
    """
    assert isinstance(function, FunctionType)
    found = sorted(sources(function) | {file_hash(__file__)})
    name = hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_CACHE / name)
    dispatcher: Any = numba.njit(nogil=True, **OPTIONS)(function)
    try:
        dispatcher._cache = _Checked(function)
    finally:
        numba.config.CACHE_DIR = before
    result: F = dispatcher
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
