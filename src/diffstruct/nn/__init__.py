"""Modules that bring their own structure."""

from diffstruct.nn.multiplier import Multiplier
from diffstruct.nn.recurrent import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "Multiplier"]
