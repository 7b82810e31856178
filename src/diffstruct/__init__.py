"""diffstruct: learn the structure of PyTorch networks, from one unit, by gradient descent.

Public is what `__all__` lists, and `diffstruct.nn`, `diffstruct.checkpoint` and `diffstruct.paper`, and the
callbacks of `diffstruct.integrations`; all other modules are internal and may change.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from diffstruct import checkpoint, nn
from diffstruct.couple import FoundDepths, FoundWidths, MultiplyAdds, find_depths, find_widths
from diffstruct.criteria import (
    AsTheModel,
    AtThreshold,
    Budget,
    Criterion,
    Initialization,
    L1Price,
    Multipliers,
    NewUnits,
    OutgoingNorm,
    SmallRandom,
    TaylorImportance,
    Training,
)
from diffstruct.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    DiffstructError,
    DivergenceError,
    ResumeWarning,
    RunFolderError,
    StructureError,
    StructureWarning,
)
from diffstruct.rule import Decision, Rule, RuleState
from diffstruct.structure import Event, History, Measurement, Sample, Structure, resize_to
from diffstruct.surgery import Change, register_initial_state
from diffstruct.version import installed_version
from diffstruct.width import Attribute, Axis, Depth, Fixed, ParameterCount, Product, Role, Slot, Sum, Width

if TYPE_CHECKING:
    from diffstruct import paper

__version__ = installed_version()


def __getattr__(name: str) -> Any:
    """`diffstruct.paper`, loaded when it is first asked for."""
    if name == "paper":
        return import_module("diffstruct.paper")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AsTheModel",
    "AtThreshold",
    "Attribute",
    "Axis",
    "Budget",
    "Change",
    "CheckpointError",
    "ConfigurationError",
    "Criterion",
    "DataError",
    "Decision",
    "Depth",
    "DiffstructError",
    "DivergenceError",
    "Event",
    "Fixed",
    "FoundDepths",
    "FoundWidths",
    "History",
    "Initialization",
    "L1Price",
    "Measurement",
    "Multipliers",
    "MultiplyAdds",
    "NewUnits",
    "OutgoingNorm",
    "ParameterCount",
    "Product",
    "ResumeWarning",
    "Role",
    "Rule",
    "RuleState",
    "RunFolderError",
    "Sample",
    "Slot",
    "SmallRandom",
    "Structure",
    "StructureError",
    "StructureWarning",
    "Sum",
    "TaylorImportance",
    "Training",
    "Width",
    "checkpoint",
    "find_depths",
    "find_widths",
    "nn",
    "paper",
    "register_initial_state",
    "resize_to",
]
