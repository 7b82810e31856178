"""diffstruct: learn the structure of PyTorch networks, from one unit, by gradient descent."""

from importlib.metadata import version

from diffstruct import nn, tasks
from diffstruct.errors import (
    ConfigurationError,
    DataError,
    DiffstructError,
    DivergenceError,
    RunFolderError,
    StructureError,
)
from diffstruct.history import Event, History, Measurement
from diffstruct.price import L1Price, UnitPrice
from diffstruct.rmsprop import ClippedRMSprop
from diffstruct.rule import Decision, Rule, RuleState
from diffstruct.run import Run
from diffstruct.structure import Structure
from diffstruct.width import Role, Slot, Width

__version__ = version("diffstruct")

__all__ = [
    "ClippedRMSprop",
    "ConfigurationError",
    "DataError",
    "Decision",
    "DiffstructError",
    "DivergenceError",
    "Event",
    "History",
    "L1Price",
    "Measurement",
    "Role",
    "Rule",
    "RuleState",
    "Run",
    "RunFolderError",
    "Slot",
    "Structure",
    "StructureError",
    "UnitPrice",
    "Width",
    "nn",
    "tasks",
]
