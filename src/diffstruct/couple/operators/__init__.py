"""The rules about operators, by what these do; to import this is to have them all."""

from diffstruct.couple.call import RULES
from diffstruct.couple.operators import (
    elementwise,
    indexing,
    joining,
    normalisation,
    products,
    reductions,
    spatial,
    views,
)

__all__ = [
    "RULES",
    "elementwise",
    "indexing",
    "joining",
    "normalisation",
    "products",
    "reductions",
    "spatial",
    "views",
]
