"""The examples in the docstrings of the public names run, and no public class or function lacks one."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module

import pytest
import torch

import diffstruct as ds
from diffstruct.integrations import lightning, loggers, sklearn, skorch, transformers

RECORDS = {
    *(ds.Decision, ds.Event, ds.FoundWidths, ds.History, ds.Measurement, ds.RuleState),  # what users read
    *(ds.NewUnits, ds.Training),  # what is handed to criteria and initialisations
    *(ds.Attribute, ds.Axis, ds.Fixed, ds.Role, ds.Width),  # in the example of `Slot`, or of `Product`
}
"""Public classes that others' examples show."""


def needs_an_example(item: object) -> bool:
    """Whether a public name is more than an error, a warning or a record."""
    return item not in RECORDS and not (inspect.isclass(item) and issubclass(item, BaseException))


PUBLIC = [getattr(ds, name) for name in ds.__all__ if name not in ("checkpoint", "nn", "paper")]
PUBLIC += [getattr(ds.checkpoint, name) for name in ds.checkpoint.__all__]
PUBLIC += [getattr(ds.nn, name) for name in ds.nn.__all__]
PUBLIC += [ds.paper.load_run, ds.paper.sample]
PUBLIC += [each.StructureCallback for each in (lightning, transformers, skorch)]
PUBLIC += [sklearn.GrowingClassifier, sklearn.GrowingRegressor, loggers.StructureWriter, loggers.measures]
SHOWN = [item for item in PUBLIC if needs_an_example(item)]
MODULES = sorted({item.__module__ for item in SHOWN})


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write a file
    torch.manual_seed(0)
    result = doctest.testmod(import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("item", SHOWN, ids=lambda item: item.__name__)
def test_every_public_name_has_an_example(item):
    assert doctest.DocTestFinder(recurse=False).find(item)[0].examples
