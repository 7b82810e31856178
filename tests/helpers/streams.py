"""Residual networks whose stream is normalised, with norms as modules, by hand, and as a function."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


class HandwrittenRMS(nn.Module):
    """As in Llama and T5."""

    def __init__(self, size):
        super().__init__()
        self.scale, self.variance_epsilon = nn.Parameter(torch.ones(size)), 1e-3

    def forward(self, x):
        return self.scale * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


class HandwrittenLayerNorm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.gain, self.bias, self.eps = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size)), 1e-3

    def forward(self, x):
        apart = x - x.mean(-1, keepdim=True)
        return self.gain * apart / ((apart * apart).mean(-1, keepdim=True) + self.eps).sqrt() + self.bias


class Functional(nn.Module):
    """`F.layer_norm`, called by hand."""

    def __init__(self, size):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.epsilon = 1e-3

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


NORMS = {
    "LayerNorm": nn.LayerNorm,
    "RMSNorm": partial(nn.RMSNorm, eps=1e-3),
    "layer_norm": Functional,
    "by hand": HandwrittenLayerNorm,
    "rms by hand": HandwrittenRMS,
}


class Block(nn.Module):
    """A feed-forward branch, with its norm before it, or behind the sum."""

    def __init__(self, size, hidden, norm, post):
        super().__init__()
        self.norm, self.post = norm(size), post
        self.up, self.down = nn.Linear(size, hidden), nn.Linear(hidden, size)

    def forward(self, x):
        branch = self.down(F.gelu(self.up(x if self.post else self.norm(x))))
        return self.norm(x + branch) if self.post else x + branch


class Network(nn.Module):
    """Tokens `[batch, time]` to logits; the readout is the embedding's weight if `tied`."""

    def __init__(self, size=6, hidden=(5, 7), norm=nn.LayerNorm, post=False, tied=False):
        super().__init__()
        self.tokens, self.places = nn.Embedding(9, size), nn.Parameter(torch.randn(4, size))
        self.blocks = nn.Sequential(*(Block(size, each, norm, post) for each in hidden))
        self.norm, self.head = norm(size), nn.Linear(size, 9, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens):
        return self.head(self.norm(self.blocks(self.tokens(tokens) + self.places)))


def network(seed=0, uneven=0.3, **options):
    """A network whose gains and biases are uneven, as training leaves them."""
    torch.manual_seed(seed)
    model = Network(**options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(uneven * torch.randn_like(parameter))
    return model


TOKENS = torch.randint(9, (3, 4), generator=torch.Generator().manual_seed(0))
