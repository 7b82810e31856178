"""Widths: learned sizes, and where they lie in the tensors of a model."""

from diffstruct.width.cost import Cost, ParameterCount
from diffstruct.width.depth import Block, Depth
from diffstruct.width.following import Followed, NewBlock, follow_blocks, outside
from diffstruct.width.follows import Attribute, Normalisation, Rescaled
from diffstruct.width.layout import Axis, Fixed, Layout, Product, Sum
from diffstruct.width.width import READERS, Role, Slot, Width

__all__ = [
    "READERS",
    "Attribute",
    "Axis",
    "Block",
    "Cost",
    "Depth",
    "Fixed",
    "Followed",
    "Layout",
    "NewBlock",
    "Normalisation",
    "ParameterCount",
    "Product",
    "Rescaled",
    "Role",
    "Slot",
    "Sum",
    "Width",
    "follow_blocks",
    "outside",
]
