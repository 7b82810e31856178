"""Layers with units that can be added and removed: recurrent layers, trainable multipliers, residual blocks.

`ds.Structure` learns the width of a recurrent layer that has declared its readers. Where they are faster than
`torch.nn`, the recurrent layers run compiled loops, whose numbers agree with torch's up to rounding.
"""

from diffstruct.nn.multiplier import Multiplier
from diffstruct.nn.recurrent import GRU, LSTM, RNN
from diffstruct.nn.residual import Residual

__all__ = ["GRU", "LSTM", "RNN", "Multiplier", "Residual"]
