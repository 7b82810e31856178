"""Models that are resized, and whether they are as they were."""

import torch
from torch import nn


def everything(model):
    """Every tensor with its memory and shape, and every integer."""
    tensors = {
        id(t): (t.data_ptr(), t.shape, t.detach().clone()) for t in (*model.parameters(), *model.buffers())
    }
    return tensors, [
        {k: v for k, v in vars(m).items() if isinstance(v, (int, tuple))} for m in model.modules()
    ]


def assert_untouched(model, before):
    tensors, integers = before
    now, same = everything(model)
    assert same == integers
    assert now.keys() == tensors.keys()
    for key, (memory, shape, value) in tensors.items():
        assert now[key][:2] == (memory, shape)
        assert torch.equal(now[key][2], value)


class Tied(nn.Module):
    """Reads with the weights it embeds with."""

    def __init__(self, hidden=8):
        super().__init__()
        self.embed, self.out = nn.Linear(hidden, 5, bias=False), nn.Linear(hidden, 5, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("shift", torch.randn(hidden))

    def forward(self, x):
        return self.out((x @ self.embed.weight + self.shift).tanh())


class Attention(nn.Module):
    """Holds its heads as an integer, and a scale that does not depend on their width."""

    def __init__(self):
        super().__init__()
        self.heads, self.scale = 3, 0.5
        self.q, self.k, self.v, self.out = (
            nn.Linear(5, 12),
            nn.Linear(5, 12),
            nn.Linear(5, 12),
            nn.Linear(12, 3),
        )

    def forward(self, x):  # each example is a step
        q, k, v = (
            layer(x).view(len(x), self.heads, -1).transpose(0, 1) for layer in (self.q, self.k, self.v)
        )
        return self.out(((q @ k.mT * self.scale).softmax(-1) @ v).transpose(0, 1).flatten(1))
