"""What happened in a run: changes of structure, and what was measured on the way. Plain records."""

from diffstruct.history.history import Event, History, Measurement
from diffstruct.history.samples import COSTS, Sample, Spacing

__all__ = ["COSTS", "Event", "History", "Measurement", "Sample", "Spacing"]
