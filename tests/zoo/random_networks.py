"""Random networks made of the blocks that users make theirs of.

A network is a front that makes features, a few blocks, and a linear head. Each block is drawn for the
features before it, and tells what comes out: B batch, F features, T time, C channels, H height, W width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.attention import GroupedQueries, SelfAttention
from zoo.convolutional import BasicBlock, ConvBn, InvertedResidual
from zoo.feedforward import SwiGLU

WIDTHS = st.integers(4, 9)
ACTIVATIONS = st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Sigmoid])

# Given how to draw and the features that come in: a block, and the features that go out.
Maker = Callable[[Callable[..., Any], int], tuple[nn.Module, int]]


class Residual(nn.Module):
    """Adds the output of a branch to its input."""

    def __init__(self, branch: nn.Module):
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Concat(nn.Module):
    """The outputs of all branches, concatenated."""

    def __init__(self, *branches: nn.Module, dim: int):
        super().__init__()
        self.branches, self.dim = nn.ModuleList(branches), dim

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=self.dim)


class Chunked(nn.Module):
    """Halves the last dimension: values and their gates."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * torch.sigmoid(gate)


class Tied(nn.Module):
    """There and back by one matrix."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.there = nn.Linear(width, inner)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.there(x)), self.there.weight.t(), self.bias)


class Swapped(nn.Module):
    """Exchanges the two dimensions before and after a layer of convolution over time."""

    def __init__(self, conv: nn.Module):
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:  # [B, T, F]
        return self.conv(x.transpose(1, 2)).transpose(1, 2)


class States(nn.Module):
    """The outputs of a recurrent layer at all times, or its last hidden state at each of them."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Excite(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.squeeze, self.excite = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W]
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3))))))
        return x * gate[:, :, None, None]


class Mean(nn.Module):
    """The mean over the given dimensions."""

    def __init__(self, *dims: int):
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=self.dims)


class Last(nn.Module):
    """The last time."""

    def forward(self, x: Tensor) -> Tensor:  # [B, T, F]
        return x[:, -1]


# Blocks on the last dimension, for [B, F] and [B, T, F] alike.


def linear(draw, width):
    out = draw(WIDTHS)
    return nn.Sequential(nn.Linear(width, out, bias=draw(st.booleans())), draw(ACTIVATIONS)()), out


def layer_norm(draw, width):
    return draw(st.sampled_from([nn.LayerNorm, nn.RMSNorm]))(width), width


def residual(draw, width):
    inner = draw(WIDTHS)
    branch = [nn.Linear(width, inner), draw(ACTIVATIONS)(), nn.Linear(inner, width)]
    return Residual(nn.Sequential(*[nn.LayerNorm(width)] * draw(st.integers(0, 1)), *branch)), width


def concat(draw, width):
    out = draw(st.lists(WIDTHS, min_size=1, max_size=2))
    return Concat(nn.Identity(), *(nn.Linear(width, each) for each in out), dim=-1), width + sum(out)


def chunked(draw, width):
    out = draw(WIDTHS)
    return nn.Sequential(nn.Linear(width, 2 * out), Chunked()), out


def swiglu(draw, width):
    block = SwiGLU(width, draw(WIDTHS))
    return (Residual(block) if draw(st.booleans()) else block), width


def shared(draw, width):
    layer = nn.Linear(width, width)
    between = draw(ACTIVATIONS)
    return nn.Sequential(layer, between(), layer), width


def tied(draw, width):
    return Tied(width, draw(WIDTHS)), width


# Blocks for [B, F] only.


def batch_norm(draw, width):
    return nn.BatchNorm1d(width, affine=draw(st.booleans())), width


# Blocks for [B, T, F] only.


def attention(draw, width):
    heads, residual_ = draw(st.integers(2, 4)), draw(st.booleans())
    out = width if residual_ else draw(WIDTHS)
    block = SelfAttention(width, heads, draw(st.integers(2, 4)), out, causal=draw(st.booleans()))
    return (Residual(block) if residual_ else block), out


def grouped_queries(draw, width):
    return Residual(GroupedQueries(draw(st.integers(2, 3)), draw(st.integers(1, 3)), 4, width, width)), width


def recurrent(draw, width):
    out, two_ways = draw(WIDTHS), draw(st.booleans())
    kind = draw(st.sampled_from([nn.RNN, nn.GRU, nn.LSTM]))
    layers = draw(st.integers(1, 2))
    return States(kind(width, out, layers, batch_first=True, bidirectional=two_ways)), out * (1 + two_ways)


def conv_over_time(draw, width):
    out = draw(WIDTHS)
    return Swapped(nn.Conv1d(width, out, 3, padding=1)), out


# Blocks for [B, C, H, W].


def conv(draw, channels):
    out = draw(WIDTHS)
    if draw(st.booleans()):
        return ConvBn(channels, out), out
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), draw(ACTIVATIONS)()), out


def depthwise(draw, channels):
    out = draw(WIDTHS)
    return nn.Sequential(ConvBn(channels, channels, groups=channels), nn.Conv2d(channels, out, 1)), out


def grouped(draw, channels):
    groups = draw(st.integers(2, 4))
    inner, outer = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    layers = [nn.Conv2d(channels, inner, 1), nn.ReLU(), nn.Conv2d(inner, outer, 3, padding=1, groups=groups)]
    if draw(st.booleans()):
        layers.append(nn.GroupNorm(groups, outer))
    return nn.Sequential(*layers), outer


def residual_conv(draw, channels):
    if draw(st.booleans()):
        return InvertedResidual(channels, draw(WIDTHS)), channels
    out, stride = draw(WIDTHS), draw(st.sampled_from([1, 2]))
    out = channels if stride == 1 else out
    return BasicBlock(channels, draw(WIDTHS), out, stride), out


def inception(draw, channels):
    out = draw(st.lists(WIDTHS, min_size=2, max_size=3))
    branches = [nn.Conv2d(channels, each, 2 * i + 1, padding=i) for i, each in enumerate(out)]
    return Concat(*branches, dim=1), sum(out)


def dense(draw, channels):
    out = draw(WIDTHS)
    return Concat(
        nn.Identity(), nn.Sequential(nn.BatchNorm2d(channels), nn.Conv2d(channels, out, 1)), dim=1
    ), (channels + out)


def excite(draw, channels):
    return Excite(channels, draw(WIDTHS)), channels


def shuffled(draw, channels):
    out = draw(WIDTHS)
    return nn.Sequential(nn.Conv2d(channels, 4 * out, 1), nn.PixelShuffle(2), nn.AvgPool2d(2)), out


def upsampled(draw, channels):
    out = draw(WIDTHS)
    return nn.Sequential(nn.ConvTranspose2d(channels, out, 2, stride=2), nn.ReLU(), nn.MaxPool2d(2)), out


ON_FEATURES: Sequence[Maker] = (linear, layer_norm, residual, concat, chunked, swiglu, shared, tied)
ON_VECTORS: Sequence[Maker] = (*ON_FEATURES, batch_norm)
ON_SEQUENCES: Sequence[Maker] = (*ON_FEATURES, attention, grouped_queries, recurrent, conv_over_time)
ON_IMAGES: Sequence[Maker] = (
    *(conv, depthwise, grouped, residual_conv, inception, dense),
    *(excite, shuffled, upsampled),
)


def stack(draw, makers: Sequence[Maker], width: int, most: int) -> tuple[list[nn.Module], int]:
    """At least one block after another, and the features that come out."""
    blocks = []
    for maker in draw(st.lists(st.sampled_from(makers), min_size=1, max_size=most)):
        block, width = maker(draw, width)
        blocks.append(block)
    return blocks, width


@st.composite
def networks(draw, most: int = 4) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A network in evaluation mode with weights that are not near zero, and inputs for it.

    Args:
        draw: what Hypothesis draws with.
        most: the most blocks in each part.
    """
    kind = draw(st.sampled_from(["vectors", "sequences", "tokens", "images"]))
    seed = draw(st.integers(0, 2**16))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "vectors":
            inputs, width = torch.randn(3, 5), 5
            blocks, width = stack(draw, ON_VECTORS, width, most)
        elif kind == "images":
            inputs = torch.randn(2, 3, 8, 8)
            blocks, width = stack(draw, ON_IMAGES, 3, most)
            if draw(st.booleans()):
                blocks.append(Mean(2, 3))
            else:  # four places of each channel, side by side
                blocks += [nn.AdaptiveAvgPool2d(2), nn.Flatten()]
                width *= 4
            if draw(st.booleans()):
                more, width = stack(draw, ON_VECTORS, width, 2)
                blocks += more
        else:
            front = []
            inputs, width = torch.randn(2, 6, 5), 5
            if kind == "tokens":
                inputs, width = torch.randint(11, (2, 6)), draw(WIDTHS)
                front = [nn.Embedding(11, width)]
            blocks, width = stack(draw, ON_SEQUENCES, width, most)
            blocks = [*front, *blocks, *draw(st.sampled_from([[], [Last()], [Mean(1)]]))]
        model = nn.Sequential(*blocks, nn.Linear(width, 3)).eval()
        for buffer in (b for name, b in model.named_buffers() if name.endswith(("mean", "var"))):
            # As after some training: statistics of zero and one would hide what is done wrong with them.
            buffer.uniform_(0.5, 1.5)
    return model, (inputs,)
