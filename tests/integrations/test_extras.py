"""Without the library that an integration is for, importing it says what to install."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

IMPORT = """
import sys
from importlib import import_module
from pkgutil import iter_modules
for name in ("transformers", "lightning", "sklearn", "skorch"):
    sys.modules[name] = None  # as if it were not installed
import diffstruct.integrations
for module in iter_modules(diffstruct.integrations.__path__, "diffstruct.integrations."):
    try:
        import_module(module.name)
    except ImportError as error:
        print(module.name.rpartition(".")[2], error, sep="\t")
"""


def test_each_integration_names_the_extra_that_it_lacks():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    said = dict(line.split("\t") for line in done.stdout.splitlines())
    assert {"lightning", "sklearn", "skorch", "transformers"} <= {*said}
    extras = re.findall(
        r"^(\w+) = \[", (Path(__file__).parents[2] / "pyproject.toml").read_text(), re.MULTILINE
    )
    for name, message in said.items():
        found = re.fullmatch(r".* is not installed: pip install 'diffstruct\[(\w+)\]'", message)
        assert found is not None, (name, message)
        assert found[1] in extras
