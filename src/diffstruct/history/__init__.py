"""What happened in a run: changes of structure, and what was measured on the way. Plain records."""

from diffstruct.history.history import Event, History, Measurement

__all__ = ["Event", "History", "Measurement"]
