"""The rules about operators, by what these do; to import this is to have them all."""

from diffstruct.couple.call import RULES
from diffstruct.couple.rules import (
    indexing,
    joining,
    normalisation,
    pointwise,
    products,
    reductions,
    space,
    views,
)

__all__ = [
    "RULES",
    "indexing",
    "joining",
    "normalisation",
    "pointwise",
    "products",
    "reductions",
    "space",
    "views",
]
