"""What is known of `torch.nn`'s modules without a run: the shapes of their tensors, and integers in doubt."""

import pytest
import torch
from torch import nn

from diffstruct.couple.modules import dims_of, in_doubt
from diffstruct.width.layout import Axis, length

CASES = [
    (lambda a, b: nn.Linear(a, b), ("in_features", "out_features")),
    (lambda a, b: nn.Bilinear(a, 3, b), ("in1_features", "out_features")),
    (lambda a, b: nn.Embedding(7, b), (None, "embedding_dim")),
    (lambda a, b: nn.EmbeddingBag(7, b), (None, "embedding_dim")),
    (lambda a, b: nn.PReLU(a), ("num_parameters", None)),
    (lambda a, b: nn.BatchNorm2d(a), ("num_features", None)),
    (lambda a, b: nn.InstanceNorm1d(a, affine=True, track_running_stats=True), ("num_features", None)),
    (lambda a, b: nn.LayerNorm(a), ("normalized_shape", None)),
    (lambda a, b: nn.RMSNorm(a), ("normalized_shape", None)),
    (lambda a, b: nn.Conv2d(a, b, (3, 5)), ("in_channels", "out_channels")),
    (lambda a, b: nn.ConvTranspose1d(a, b, 3), ("in_channels", "out_channels")),
    (lambda a, b: nn.RNN(a, b, num_layers=2), ("input_size", "hidden_size")),
    (lambda a, b: nn.GRU(a, b, num_layers=2, bidirectional=True), ("input_size", "hidden_size")),
    (lambda a, b: nn.LSTM(a, b, bias=False), ("input_size", "hidden_size")),
    (lambda a, b: nn.RNNCell(a, b), ("input_size", "hidden_size")),
    (lambda a, b: nn.GRUCell(a, b), ("input_size", "hidden_size")),
    (lambda a, b: nn.LSTMCell(a, b), ("input_size", "hidden_size")),
]


@pytest.mark.parametrize(("build", "names"), CASES)
def test_the_shapes_at_other_sizes_are_those_of_a_module_of_these_sizes(build, names):
    module, other = build(4, 6), build(9, 8)
    axes = {}

    def size(name, index=None):
        value = getattr(module, name)
        return axes.setdefault(name, Axis(value if index is None else value[index]))

    dims = dims_of(module, size)
    sizes = {axes[name]: size for name, size in zip(names, (9, 8), strict=True) if name in axes}
    tensors = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    assert {*tensors} <= {*dims}
    for name, tensor in tensors.items():
        assert tuple(length(layout, sizes) for layout in dims[name]) == tensor.shape


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 4, 3, groups=2),
        nn.LSTM(4, 6, proj_size=2),
        nn.GroupNorm(2, 4),
        nn.MultiheadAttention(4, 2),
        nn.ReLU(),
    ],
    ids=lambda module: type(module).__name__,
)
def test_of_others_nothing_is_claimed(module):
    assert dims_of(module, lambda name: Axis(1)) is None


class Config:
    def __init__(self, hidden):
        self.hidden, self.layers = hidden, 2


class Reader(nn.Module):
    def __init__(self, **attributes):
        super().__init__()
        self.inner = nn.Linear(4, 12)
        vars(self).update(attributes)


@pytest.mark.parametrize(
    ("attributes", "doubtful"),
    [
        ({}, []),
        ({"steps": 5, "kind": "relu", "flag": True}, []),
        ({"anything": 12}, ["r.anything = 12"]),
        ({"heads": 3}, ["r.heads = 3"]),
        ({"rate": 3}, []),
        ({"shape": (2, 12)}, ["r.shape = 12"]),
        ({"config": Config(12)}, ["r.config.hidden = 12"]),
    ],
)
def test_integers_of_other_modules_that_may_be_the_size_are_in_doubt(attributes, doubtful):
    model = nn.ModuleDict({"r": Reader(**attributes), "norm": nn.BatchNorm1d(12)})
    assert [*in_doubt(model, {12})] == doubtful


@pytest.mark.parametrize(
    ("module", "doubtful"),
    [
        (nn.Unflatten(1, (12, 1)), ["m.unflattened_size = 12"]),
        (nn.GroupNorm(4, 12), ["m.num_groups = 4", "m.num_channels = 12"]),
        (nn.BatchNorm1d(12, affine=False, track_running_stats=False), ["m.num_features = 12"]),
        (nn.Conv2d(12, 5, 12), []),
        (nn.MaxPool2d(12), []),
        (nn.LayerNorm(12), []),
        (nn.LayerNorm(12, elementwise_affine=False), ["m.normalized_shape = 12"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_integers_of_torchs_modules_are_in_doubt_where_their_tensors_do_not_say(module, doubtful):
    assert [*in_doubt(nn.ModuleDict({"m": module}), {12})] == doubtful


def test_a_users_kind_of_linear_layer_is_known_but_for_what_it_adds():
    class Scaled(nn.Linear):
        def __init__(self, inputs, outputs):
            super().__init__(inputs, outputs)
            self.scale, self.pieces = nn.Parameter(torch.ones(outputs)), outputs

    assert [*in_doubt(nn.ModuleDict({"m": Scaled(4, 12)}), {12})] == ["m.pieces = 12"]
