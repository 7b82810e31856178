"""Checkpoints: the state of a whole run in one call, as safetensors and JSON; nothing in them is executed."""

from diffstruct.checkpoint.checkpoint import latest, load, save

__all__ = ["latest", "load", "save"]
