"""Structure: ties a criterion, a rule and surgery to a model and its optimizer, from `start` to `finish`."""

from diffstruct.history import Event, History, Measurement, Sample
from diffstruct.structure.resize import resize_to
from diffstruct.structure.structure import Structure

__all__ = ["Event", "History", "Measurement", "Sample", "Structure", "resize_to"]
