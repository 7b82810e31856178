"""Where compiled code is kept: never stale, never in the way of the user's own."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from diffstruct.nn.kernels import compile as compilation


def folder_under(**environment):
    """The folder that a fresh process would use, in a changed environment."""
    code = "from diffstruct.nn.kernels import compile, blocks; import numba; "
    code += "print(compile._FOLDER); print(numba.config.CACHE_DIR)"
    cleared = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=cleared | environment, capture_output=True, text=True, check=True
    )
    folder, users = done.stdout.splitlines()
    return Path(folder), users


def test_it_is_kept_in_the_users_cache_under_a_name_for_all_sources(tmp_path):
    folder, users = folder_under(XDG_CACHE_HOME=str(tmp_path))
    assert folder == tmp_path / "diffstruct" / compilation._sources()
    assert users == ""  # what the user compiles goes where it went before


def test_the_users_wish_comes_first(tmp_path):
    folder, users = folder_under(NUMBA_CACHE_DIR=str(tmp_path))
    assert folder == tmp_path / compilation._sources()
    assert users == str(tmp_path)


def test_a_cache_that_cannot_be_written_is_replaced_for_this_process(tmp_path):
    (tmp_path / "file").write_text("")
    folder, _ = folder_under(XDG_CACHE_HOME=str(tmp_path / "file"), TMPDIR=str(tmp_path))
    assert folder.parent == tmp_path
    assert folder.is_dir()


@pytest.mark.parametrize(
    "name", ["earnings.py", "price.py", "rule.py", "kernels/network.py", "kernels/blocks.py"]
)
def test_a_change_of_any_source_changes_the_name(name, tmp_path, monkeypatch):
    package = compilation._PACKAGE
    (tmp_path / "kernels").mkdir()
    alone = (package / name for name in ("earnings.py", "price.py", "rule.py"))
    for file in [*(package / "kernels").glob("*.py"), *alone]:
        (tmp_path / file.relative_to(package)).write_bytes(file.read_bytes())
    monkeypatch.setattr(compilation, "_PACKAGE", tmp_path)
    before = compilation._sources()
    assert before == compilation._sources()
    (tmp_path / name).write_text((tmp_path / name).read_text() + "\n# changed\n")
    assert compilation._sources() != before


def test_compiling_leaves_the_users_setting_alone():
    before = numba.config.CACHE_DIR

    @compilation.compiled
    def double(x):
        return x + x

    assert before == numba.config.CACHE_DIR
    assert double(2) == 4
