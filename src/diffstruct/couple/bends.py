"""What keeps a channel from being the mean of the others all the way to a `LayerNorm`, for reasons.

A channel that is the mean of the others before an activation is not behind it, and nor is one before a
convolution that has a kernel of its own for each channel.
"""

from __future__ import annotations

from diffstruct.couple.call import Call

ACTIVATIONS = (
    *("celu", "elu", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu"),
    *("log_sigmoid", "mish", "_prelu_kernel", "relu", "relu6", "selu", "sigmoid", "silu", "softplus"),
    *("softshrink", "tanh"),
)
"""Operators that act on each entry, and are not linear."""

MIXES = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution", "_convolution", "embedding")
"""Operators that make new channels of old ones."""


def bend(call: Call) -> str | None:
    """What stands between the weights that write what a call returns and its results, if anything does."""
    if call.name in MIXES:
        return _own_kernels(call)
    if call.name in ACTIVATIONS and call.tensors and not call.state.is_weight(call.tensors[0]):
        return f"{call.name.strip('_')} in {call.state.where}"
    return next((why for why in map(call.state.bent.get, map(id, call.tensors)) if why is not None), None)


def _own_kernels(call: Call) -> str | None:
    if "convolution" in call.name and call.args[8] > 1:
        return f"a convolution in groups in {call.state.where}"
    return None
