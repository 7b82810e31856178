"""Learn how many channels a small CNN needs to read scikit-learn's handwritten digits.

`python examples/digits_cnn.py` needs `pip install 'diffstruct[experiments]'`. The same training loop trains
three networks, each from fresh weights: one whose channels are learned, the one that it began as, and a
narrower one of (nearly) the learned size with as many channels in both of its layers.
"""

import argparse
from pathlib import Path

import torch
from pictures import save
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import update_bn

import diffstruct as ds

options = argparse.ArgumentParser(description=__doc__)
options.add_argument("--steps", type=int, default=2000, help="training steps of each network")
options.add_argument("--picture", type=Path, default=Path("runs/digits_cnn.png"))
options = options.parse_args()

digits = load_digits()  # 1,797 images of 8 by 8 pixels; a third of them, drawn at random, is for testing
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
labels = torch.tensor(digits.target)
test, train = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tensor_split([600])


def cnn(first, second):
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, first, 3, padding=1), nn.BatchNorm2d(first), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(first, second, 3, padding=1), nn.BatchNorm2d(second), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(second, 10)),
    )


def fit(model, structure=None, optimizer=None):
    """An ordinary training loop; returns the sizes after each step, if there is a structure."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=3e-3)
    draw, sizes = torch.Generator().manual_seed(1), []
    for _ in range(options.steps):
        batch = train[torch.randint(len(train), (64,), generator=draw)]
        loss = cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if structure:
            structure.step()
            sizes.append([width.size for width in structure.widths.values()])
    return sizes


def size(model):
    return sum(p.numel() for p in model.parameters())


def error(model):
    """The percentage of the test images that are read wrongly."""
    update_bn(images[train].split(64), model)  # means over all training images, not over the last few batches
    model.eval()
    with torch.no_grad():
        return 100 * (model(images[test]).argmax(1) != labels[test]).float().mean().item()


learned = cnn(32, 64)
optimizer = torch.optim.Adam(learned.parameters(), lr=3e-3)
structure = ds.Structure(learned, optimizer, example_inputs=(images[:64],), total_steps=options.steps)
sizes = fit(learned, structure, optimizer)
learned = structure.finish()
print(structure)
final = [learned[0].out_channels, learned[4].out_channels]

fixed = cnn(32, 64)
fit(fixed)
channels = max(n for n in range(2, 65) if n == 2 or size(cnn(n, n)) <= size(learned))
uniform = cnn(channels, channels)
fit(uniform)

models = {
    f"learned, {final[0]} and {final[1]} channels": learned,
    "as it began, 32 and 64 channels": fixed,
    f"uniform, {channels} and {channels} channels": uniform,
}
errors = {name: error(model) for name, model in models.items()}
for name, model in models.items():
    print(f"{name}: {size(model):,} parameters, {errors[name]:.1f}% of {len(test)} test images wrong")

save(
    "digits_cnn",
    {
        "channels": {name: [now[i] for now in sizes] for i, name in enumerate(structure.widths)},
        "models": {name: (size(model), errors[name]) for name, model in models.items()},
    },
    options.picture,
)
