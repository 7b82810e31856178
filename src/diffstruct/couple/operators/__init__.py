"""The rules for operators, by what these do; importing this registers all of them."""

from diffstruct.couple.call import OP_RULES
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
    "OP_RULES",
    "elementwise",
    "indexing",
    "joining",
    "normalisation",
    "products",
    "reductions",
    "spatial",
    "views",
]
