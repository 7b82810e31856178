"""Widths: learned sizes, and where they lie in the tensors of a model."""

from diffstruct.width.cost import Cost, ParameterCount
from diffstruct.width.follows import Attribute, Normalisation, Rescaled
from diffstruct.width.layout import Axis, Fixed, Layout, Product, Sum
from diffstruct.width.width import READERS, Role, Slot, Width

__all__ = [
    "READERS",
    "Attribute",
    "Axis",
    "Cost",
    "Fixed",
    "Layout",
    "Normalisation",
    "ParameterCount",
    "Product",
    "Rescaled",
    "Role",
    "Slot",
    "Sum",
    "Width",
]
