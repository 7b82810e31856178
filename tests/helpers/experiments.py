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
def experiment(name: str) -> Iterator[ModuleType]:
    """Its `__main__`; afterwards its modules, whose names other experiments have too, are gone again."""
    modules, path = set(sys.modules), [*sys.path]
    sys.path.insert(0, str(EXPERIMENTS / name))
    found = spec_from_file_location(f"{name}_main", EXPERIMENTS / name / "__main__.py")
    program = module_from_spec(found)
    try:
        found.loader.exec_module(program)
        yield program
    finally:
        sys.path[:] = path
        for module in {*sys.modules} - modules:
            if str(EXPERIMENTS) in str(getattr(sys.modules[module], "__file__", None)):
                del sys.modules[module]
