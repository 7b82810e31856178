"""What a compiled function is made of: which changes count, and which do not."""

import importlib
import sys

import numba
import pytest
from numba.extending import intrinsic

from diffstruct.nn.kernels.sources import implement, sources

FILES = {
    "caller": """
import math
import numba
import called
from called import Pair, SIZE, plain, compiled
from called import added
def attribute(x):
    return called.plain(x)
def by_name(x):
    return plain(x)
def through_numba(x):
    return compiled(x)
def through_intrinsic(x):
    return added(x)
def through_a_class(x):
    return Pair(x, x)
def nested(x):
    return [plain(each) for each in range(x)] + [(lambda: plain(x))()]
def with_constant(x):
    return x + SIZE
def closure(inner):
    def outer(x):
        return inner(x)
    return outer
enclosed = closure(plain)
def alone(x):
    return x
def stub(x):
    raise NotImplementedError
def plainly(x):
    return stub(x)
def of_a_library(x):
    return math.erf(x)
TABLE = {"by name": by_name, "others": [(attribute,)]}
def implementation(x):
    return TABLE["by name"]
def recursive(x):
    return recursive(x - 1) if x else through_numba(x)
""",
    "called": """
from typing import NamedTuple
import numba
from numba.extending import intrinsic
from deeper import deep
SIZE = 16
class Pair(NamedTuple):
    one: int
    two: int
def plain(x):
    return deep(x)
@numba.njit
def compiled(x):
    return deep(x)
@intrinsic
def added(context, x):
    return deep(x)
""",
    "deeper": "def deep(x): return x\n",
    "unrelated": "def far(x): return x\n",
}
REACHING = [
    "attribute",
    "by_name",
    "through_numba",
    "through_intrinsic",
    "nested",
    "enclosed",
    "implementation",
    "recursive",
]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Import `caller` from new files, `FILES` with some changed."""
    monkeypatch.setattr("diffstruct.nn.kernels.sources._implementations", {})

    def fresh(**changed):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, text in (FILES | changed).items():
            (folder / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(folder)
        return importlib.import_module("caller")

    yield fresh
    for name in FILES:
        sys.modules.pop(name, None)


def found(module, name):
    return sources(getattr(module, name))


@pytest.mark.parametrize("name", REACHING)
@pytest.mark.parametrize("file", ["caller", "called", "deeper"])
def test_a_change_of_a_file_that_is_reached_counts(name, file, load):
    before = found(load(), name)
    assert found(load(), name) == before
    changed = FILES[file] + "# changed\n"
    assert found(load(**{file: changed}), name) != before


@pytest.mark.parametrize("name", [*REACHING, "with_constant", "through_a_class"])
def test_a_change_of_another_file_does_not_count(name, load):
    before = found(load(), name)
    assert found(load(unrelated="changed = True\n"), name) == before


def test_what_the_function_does_not_name_does_not_count(load):
    before = found(load(), "alone")
    assert found(load(called=FILES["called"] + "# changed\n"), "alone") == before


def test_a_change_of_the_file_of_a_class_counts(load):
    before = found(load(), "through_a_class")
    assert found(load(called=FILES["called"].replace("two: int", "two: float")), "through_a_class") != before


def test_constants_count_by_their_values(load):
    before = found(load(), "with_constant")
    assert "SIZE = 16" in before
    assert found(load(called=FILES["called"] + "# changed\n"), "with_constant") == before
    assert "SIZE = 8" in found(load(called=FILES["called"].replace("16", "8")), "with_constant")


def test_what_a_function_is_implemented_by_counts(load):
    module = load()
    before = found(module, "plainly")
    implement(module.stub, module.implementation)
    assert found(module, "plainly") == before | found(module, "implementation")
    assert found(module, "by_name") <= found(module, "plainly")  # through the values of the table


def test_what_a_function_of_a_library_is_implemented_by_counts(load):
    module = load()
    assert found(module, "of_a_library") == found(module, "alone")
    implement(module.math.erf, module.plain)
    assert found(module, "of_a_library") == found(module, "by_name")


def test_files_of_libraries_do_not_count():
    def calls_libraries(x):
        return numba.carray(x, 3), intrinsic(x)

    def calls_nothing(x):
        return x

    assert sources(calls_libraries) == sources(calls_nothing)
