"""What a compiled function is made of: the files of the functions that it reaches, and constants.

By itself Numba compiles a function anew when the function's own file has changed, but not when the file of
another function has, which it calls.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

Sources = frozenset[str]
"""Hashes of files, and constants with their names."""

# Numba does not compile what these define: it has implementations of its own.
_LIBRARIES = sys.stdlib_module_names | {"llvmlite", "numba", "numpy", "torch"}


@cache
def file_hash(path: str) -> str:
    """The hash of the contents that the file had at the first call."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def sources(function: FunctionType, known: Mapping[FunctionType, Sources]) -> Sources:
    """Everything whose change could change what `function` compiles to.

    These are the function's file, the files of all functions and classes that it reaches by global names in
    its code, and the numbers and strings that it reaches by them. Names are looked up now, so a function must
    stand below those that it calls. An `@overload` must stand in the file of the function that it implements,
    or in the one where a caller of that function is compiled.

    Args:
        function: a Python function.
        known: what this function has returned before, and files that count besides.
    """
    found: set[str] = set()
    seen: set[FunctionType] = set()
    pending: list[tuple[str, Any]] = [("", function)]
    while pending:
        name, item = pending.pop()
        original = inspect.unwrap(item)  # of a dispatcher or an intrinsic, the Python function
        if isinstance(item, int | float | complex | str):
            found.add(f"{name} = {item!r}")
        elif isinstance(item, tuple):
            pending += [(f"{name}[{index}]", entry) for index, entry in enumerate(item)]
        elif _library(getattr(item, "__module__", None)):
            continue
        elif isinstance(item, type):
            found.add(file_hash(inspect.getfile(item)))
        elif isinstance(original, FunctionType) and original not in seen:
            seen.add(original)
            if original in known:
                found |= known[original]
            else:
                found.add(file_hash(original.__code__.co_filename))
                pending += _reached(original)
    return frozenset(found)


def _reached(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What the names in the function's code stand for, attributes of modules included."""
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        yield name, cell.cell_contents
    names = set(_names(code))
    for name in names & function.__globals__.keys():
        item = function.__globals__[name]
        yield name, item
        if isinstance(item, ModuleType) and not _library(item.__name__):
            for attribute in names & vars(item).keys():
                yield f"{name}.{attribute}", getattr(item, attribute)


def _names(code: CodeType) -> Iterator[str]:
    """The names of globals and attributes in the code, that of functions within it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _library(module: str | None) -> bool:
    return module is None or module.partition(".")[0] in _LIBRARIES
