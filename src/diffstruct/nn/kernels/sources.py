"""What a compiled function is made of: the files of the functions that it reaches, and constants.

By itself Numba compiles a function anew when the function's own file has changed, but not when the file of
another function has, which it calls.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

# Numba does not compile what these define: it has implementations of its own.
_LIBRARIES = sys.stdlib_module_names | {"llvmlite", "numba", "numpy", "torch"}

_implementations: dict[int, list[FunctionType]] = {}  # by the id of the function, which Numba keeps alive


def implement(function: Any, implementation: FunctionType) -> None:
    """From now on whatever reaches `function` reaches `implementation`, which Numba compiles in its place."""
    _implementations.setdefault(id(function), []).append(implementation)


@cache
def file_hash(path: str) -> str:
    """The hash of the contents that the file had at the first call."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def sources(function: FunctionType) -> frozenset[str]:
    """Everything whose change could change what `function` compiles to.

    These are the function's file, the files of all functions and classes that it reaches by global names in
    its code, and the numbers and strings that it reaches by them. Names are looked up now, so a function must
    stand below those that it calls.

    Returns:
        Modules with the hashes of their files (what is kept names types by their modules), and constants with
        their names.
    """
    found: set[str] = set()
    seen: set[int] = set()
    pending: list[tuple[str, Any]] = [("", function)]
    while pending:
        name, item = pending.pop()
        if isinstance(item, int | float | complex | str):
            found.add(f"{name} = {item!r}")
            continue
        if id(item) in seen:
            continue
        seen.add(id(item))
        pending += [(name, implementation) for implementation in _implementations.get(id(item), ())]
        if isinstance(item, tuple | list | dict):
            parts = [*item, *item.values()] if isinstance(item, dict) else item
            pending += [(f"{name}[{index}]", part) for index, part in enumerate(parts)]
        elif _is_library(getattr(item, "__module__", None)):
            continue
        elif isinstance(item, type):
            found.add(f"{item.__module__} {file_hash(inspect.getfile(item))}")
        elif isinstance(original := inspect.unwrap(item), FunctionType):  # of a dispatcher or an intrinsic
            found.add(f"{original.__module__} {file_hash(original.__code__.co_filename)}")
            pending += _reached(original)
    return frozenset(found)


@cache
def _reached(function: FunctionType) -> list[tuple[str, Any]]:
    """What the names in the function's code stand for, attributes of modules included."""
    code, namespace = function.__code__, function.__globals__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    reached = [(name, cell.cell_contents) for name, cell in cells]
    names = set(_names(code))
    for name in names & namespace.keys():
        item = namespace[name]
        if isinstance(item, ModuleType):
            reached += [(f"{name}.{other}", vars(item)[other]) for other in names & vars(item).keys()]
        else:
            reached.append((name, item))
    return reached


def _names(code: CodeType) -> Iterator[str]:
    """The names of globals and attributes in the code, that of functions within it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_library(module: str | None) -> bool:
    return module is None or module.partition(".")[0] in _LIBRARIES
