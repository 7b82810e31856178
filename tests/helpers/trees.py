"""Arbitrary values that a checkpoint can hold, for Hypothesis."""

from __future__ import annotations

import string
from collections import Counter, OrderedDict

import numpy as np
import torch
from hypothesis import strategies as st

from diffstruct.checkpoint.arrays import ARRAY_TYPES, TENSOR_TYPES

SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@st.composite
def raw(draw, count):
    """Random bytes."""
    return draw(st.binary(min_size=count, max_size=count))


@st.composite
def tensors(draw):
    """Tensors of each type with arbitrary bits, some with strides of their own."""
    name, shape = draw(st.sampled_from([*TENSOR_TYPES])), draw(SHAPES)
    itemsize = TENSOR_TYPES[name].itemsize
    content = bytearray(draw(raw(int(np.prod(shape)) * itemsize)))
    if name == "bool":
        content = bytearray(each % 2 for each in content)
    flat = torch.tensor([*content], dtype=torch.uint8).view(TENSOR_TYPES[name])
    tensor = flat.reshape(shape)
    match draw(st.sampled_from(["", "transposed", "expanded", "sliced", "parameter"])):
        case "transposed" if tensor.ndim:
            return tensor.transpose(0, -1)
        case "expanded":
            return tensor.expand(2, *shape)
        case "sliced" if tensor.ndim:
            return tensor[::2]
        case "parameter":
            return torch.nn.Parameter(tensor, requires_grad=False)
    return tensor


@st.composite
def arrays(draw):
    """Arrays and scalars of each type with arbitrary bits, some with strides of their own."""
    typed, shape = ARRAY_TYPES[draw(st.sampled_from([*ARRAY_TYPES]))], draw(SHAPES)
    content = draw(raw(int(np.prod(shape)) * typed.itemsize))
    if typed == np.bool_:
        content = bytes(each % 2 for each in content)
    array = np.frombuffer(content, np.uint8).view(typed).reshape(shape)
    match draw(st.sampled_from(["", "transposed", "broadcast", "scalar"])):
        case "transposed":
            return array.T
        case "broadcast":
            return np.broadcast_to(array, (2, *shape))
        case "scalar":
            return typed.type(draw(st.integers(0, 1)))
    return array


KEYS = st.text(max_size=5) | st.integers(-(2**63), 2**63 - 1) | st.sampled_from(["1", 1, "_metadata", ""])
LEAVES = (
    st.none()
    | st.booleans()
    | st.text()
    | st.binary(max_size=20)
    | st.integers()
    | st.integers(-(2**300), 2**300)
    | st.floats()
    | st.sampled_from([-0.0, 2**63, -(2**63), -(2**63) - 1, 5e-324, 1.7976931348623157e308])
    | st.sampled_from([torch.float32, torch.float8_e5m2, torch.Size([2, 3]), torch.Size([])])
    | st.sampled_from([torch.device("cpu"), torch.device("cuda:1")])
    | tensors()
    | arrays()
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4).map(OrderedDict)
        | st.dictionaries(KEYS, st.integers(), max_size=4).map(Counter)
    ),
    max_leaves=15,
)
NAMES = st.text(string.ascii_lowercase + "_", min_size=1).filter(lambda name: name not in ("folder", "keep"))
