"""Compiled kernels. They need Numba; without it, PyTorch's own operators compute the same, slower."""

from importlib.util import find_spec

available = find_spec("numba") is not None
"""Whether there is a compiler for the kernels. It is imported when the first kernel runs, not here."""
