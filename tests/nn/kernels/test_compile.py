"""Where compiled code is kept: never stale, and apart from the user's own."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from diffstruct.nn.kernels import compile as compilation
from diffstruct.nn.kernels.compile import compiled

pytestmark = pytest.mark.slow

RUN = """
import sys, types
for name, path in (("diffstruct", {package!r}), ("diffstruct.nn", {package!r} + "/nn")):
    sys.modules[name] = types.ModuleType(name)  # empty: to compile, nothing above the kernels is needed
    sys.modules[name].__path__ = [path]
import numba
import diffstruct.nn.kernels.compile as compilation
sys.path.insert(0, {folder!r})
import caller
print(compilation._CACHE)
print(numba.config.CACHE_DIR)
assert "torch" not in sys.modules
print(caller.function(1), sum(caller.function.stats.cache_hits.values()))
"""
CALLER = """
from diffstruct.nn.kernels.compile import compiled
from called import called
@compiled
def function(x):
    return called(x)
"""
CALLED = """
from diffstruct.nn.kernels.compile import compiled
@compiled
def called(x):
    return x + 1
"""
IMPLEMENTED = """
from diffstruct.nn.kernels.compile import overload
def called(x):
    raise NotImplementedError
@overload(called)
def choose(x):
    return implementation
def implementation(x):
    return x + 1
"""


def run(folder, **environment):
    """In a process of its own: our cache, the user's, the function's result, and how often it was loaded."""
    if not (folder / "caller.py").exists():  # older ones of Numba go by the time at which it was written
        (folder / "caller.py").write_text(CALLER)
    cleared = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    package = str(Path(compilation.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(folder=str(folder), package=package)],
        env=cleared | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    cache, users, results = done.stdout.splitlines()
    return Path(cache), users, [int(number) for number in results.split()]


@pytest.fixture
def modules(tmp_path):
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "called.py").write_text(CALLED)
    return folder


@pytest.mark.parametrize("called", [CALLED, IMPLEMENTED], ids=["compiled", "implemented"])
def test_compiled_code_is_loaded_until_a_called_file_changes(called, modules, tmp_path):
    (modules / "called.py").write_text(called)
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    folder, users, results = run(modules, **cache)
    assert results == [2, 0]
    assert folder == tmp_path / "cache" / "diffstruct"
    assert users == ""  # what the user compiles is kept where it was before
    assert list(folder.rglob("caller.function-*.nbc"))
    (modules / "unrelated.py").write_text("")
    assert run(modules, **cache)[2] == [2, 1]
    (modules / "called.py").write_text(called.replace("x + 1", "x + 2"))
    assert run(modules, **cache)[2] == [3, 0]


def test_the_users_folder_comes_first(modules, tmp_path):
    folder, users, _ = run(modules, NUMBA_CACHE_DIR=str(tmp_path / "numba"))
    assert folder == tmp_path / "numba"
    assert users == str(folder)


def test_a_cache_that_cannot_be_written_is_replaced_for_this_process(modules, tmp_path):
    (tmp_path / "file").write_text("")
    folder, _, results = run(modules, XDG_CACHE_HOME=str(tmp_path / "file"), TMPDIR=str(tmp_path))
    assert folder.parent == tmp_path
    assert list(folder.rglob("caller.function-*.nbc"))
    assert results == [2, 0]


def test_compiling_leaves_the_users_setting_alone():
    before = numba.config.CACHE_DIR

    @compiled
    def double(x):
        return x + x

    assert before == numba.config.CACHE_DIR
    assert double(2) == 4


def test_code_for_other_types_under_the_same_number_is_not_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(compilation, "_CACHE", tmp_path)

    def half(x):
        return x / 2

    first = compiled(half)
    assert [first(3), first(3.0)] == [1.5, 1.5]
    one, two = sorted(tmp_path.rglob("*.nbc"))
    one.write_bytes(two.read_bytes())  # as a process leaves it that has begun with the same number
    for hits in (0, 1):  # compiled again, and kept in the place of what was there
        again = compiled(half)
        assert again(3) == 1.5
        assert again.signatures == [(numba.int64,)]
        assert sum(again.stats.cache_hits.values()) == hits
