"""What units are judged by.

`criterion` is the interface. `taylor` (with `tracker` and `importance`, `loss` and `outputs`, `removal`,
`decay`, `settling` and `budget`) judges by the share of what the network has won, `norm_criteria` (with
`norms`, `l1`, `parametrization`) as the paper does. `initialization` (with `new_units`) is what new units
begin with.
"""

from diffstruct.criteria.budget import Budget
from diffstruct.criteria.criterion import Criterion, Training
from diffstruct.criteria.initialization import AsTheModel, AtThreshold, Initialization, SmallRandom
from diffstruct.criteria.l1 import L1Price
from diffstruct.criteria.new_units import NewUnits
from diffstruct.criteria.norm_criteria import Multipliers, OutgoingNorm
from diffstruct.criteria.taylor import TaylorImportance

__all__ = [
    "AsTheModel",
    "AtThreshold",
    "Budget",
    "Criterion",
    "Initialization",
    "L1Price",
    "Multipliers",
    "NewUnits",
    "OutgoingNorm",
    "SmallRandom",
    "TaylorImportance",
    "Training",
]
