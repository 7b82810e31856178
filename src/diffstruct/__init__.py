"""diffstruct: learn the structure of PyTorch networks, from one unit, by gradient descent."""

from importlib.metadata import version

from diffstruct import nn
from diffstruct.criteria.l1 import L1Price, UnitPrice
from diffstruct.errors import (
    ConfigurationError,
    DataError,
    DiffstructError,
    DivergenceError,
    RunFolderError,
    StructureError,
)
from diffstruct.paper import tasks
from diffstruct.paper.rmsprop import ClippedRMSprop
from diffstruct.paper.run import Run
from diffstruct.rule.rule import Decision, Rule, RuleState
from diffstruct.structure.history import Event, History, Measurement
from diffstruct.structure.structure import Structure
from diffstruct.width.width import Role, Slot, Width

__version__ = version("diffstruct")
