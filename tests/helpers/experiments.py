"""An experiment of the folder `experiments`, imported as it is when its folder is run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@contextmanager
def experiment(name: str, program: str = "__main__") -> Iterator[ModuleType]:
    """One of its programs; afterwards its modules, whose names other experiments have too, are gone again."""
    modules, path = set(sys.modules), [*sys.path]
    sys.path.insert(0, str(EXPERIMENTS / name))
    found = spec_from_file_location(f"{name}_{program}", EXPERIMENTS / name / f"{program}.py")
    module = module_from_spec(found)
    try:
        found.loader.exec_module(module)
        yield module
    finally:
        sys.path[:] = path
        for new in {*sys.modules} - modules:
            if str(EXPERIMENTS) in str(getattr(sys.modules[new], "__file__", None)):
                del sys.modules[new]
