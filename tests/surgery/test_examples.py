"""The examples in the docstrings run: a width written by hand, and an optimizer that is registered."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("module", ["diffstruct.width.width", "diffstruct.surgery.optimizer_state"])
def test_examples_run(module):
    result = doctest.testmod(import_module(module))
    assert result.attempted > 0
    assert result.failed == 0
