"""Sequence kernels: forward and backward of whole sequences, without autograd's cost at each step."""

from importlib.util import find_spec

available = find_spec("numba") is not None
"""Whether there is a compiler for the kernels. It is imported when the first kernel runs, not here."""
