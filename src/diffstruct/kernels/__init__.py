"""Sequence kernels: forward and backward of whole sequences, without autograd's cost at each step."""
