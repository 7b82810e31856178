"""Small models of plain `torch.nn`, and a training loop that learns their structure."""

from itertools import pairwise

import torch
from torch import nn

import diffstruct as ds

EAGER = ds.Rule(threshold=0.3, reserve=0.3, p_add=0.8, p_delete=0.5, max_units=96)
STILL = ds.Rule(threshold=0.3, p_add=0, p_delete=0, p_spontaneous=0)
X, Y = torch.randn(32, 5, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3


def mlp(hidden=(16, 12)):
    torch.manual_seed(0)
    sizes = [5, *hidden, 3]
    layers = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Branches(nn.Module):
    """Two concatenated layers, with a BatchNorm on both."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(5, 6), nn.Linear(5, 4)
        self.norm, self.middle, self.out = nn.BatchNorm1d(10), nn.Linear(10, 7), nn.Linear(7, 3)

    def forward(self, x):
        joined = self.norm(torch.cat([self.left(x), self.right(x)], 1)).relu()
        return self.out(self.middle(joined).relu())


def branches():
    torch.manual_seed(0)
    return Branches()


def structured(model=None, optimizer=torch.optim.Adam, lr=1e-2, run=None, **options):
    """Model, optimizer and structure, from one unit; `run` is what Structure is given in place of the
    model."""
    model = mlp() if model is None else model
    optimizer = optimizer([p for p in model.parameters() if p.requires_grad], lr=lr)
    options = {"rule": EAGER, "interval": 1, "total_steps": 1000, "criterion": ds.OutgoingNorm(), **options}
    options = {"example_inputs": (X,), "start": 1, **options}
    return model, optimizer, ds.Structure(run or model, optimizer, **options)


def learn(model, optimizer, structure, steps=30, run=None, check=lambda: None):
    """Train on the same 32 examples; return the last loss."""
    for _ in range(steps):
        loss = nn.functional.cross_entropy((run or model)(X), Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        structure.step()
        check()
    return loss.item()


def sizes(structure):
    return {name: width.size for name, width in structure.widths.items()}
