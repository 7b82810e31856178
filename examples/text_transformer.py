"""Learn the shape of a byte-level transformer on the sources of Python's standard library, under a budget.

`python examples/text_transformer.py`: feed-forward units, heads, the width of heads and the stream compete
for the budget's parameters. Beside it, a transformer of the usual shape that is as large trains as long.
"""

import argparse
import math
import sysconfig
from pathlib import Path

import torch
from pictures import save
from torch import nn
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention

import diffstruct as ds

CONTEXT = 64
options = argparse.ArgumentParser(description=__doc__)
options.add_argument("--steps", type=int, default=1500, help="training steps of each network")
options.add_argument("--picture", type=Path, default=Path("runs/text_transformer.png"))
options = options.parse_args()

files = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*.py"))
text = torch.frombuffer(bytearray(b"".join(file.read_bytes() for file in files)), dtype=torch.uint8).long()
train, test = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]


class Block(nn.Module):
    def __init__(self, stream, units, heads, head_width):
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.norm1, self.norm2 = nn.LayerNorm(stream), nn.LayerNorm(stream)
        self.qkv = nn.Linear(stream, 3 * heads * head_width)
        self.project = nn.Linear(heads * head_width, stream)
        self.up, self.down = nn.Linear(stream, units), nn.Linear(units, stream)

    def forward(self, x):
        split = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, self.head_width))
        q, k, v = split.permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(attended.transpose(1, 2).flatten(2))
        return x + self.down(gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, stream, units, heads, head_width, blocks=2):
        super().__init__()
        torch.manual_seed(0)
        self.bytes, self.places = nn.Embedding(256, stream), nn.Embedding(CONTEXT, stream)
        self.blocks = nn.Sequential(*(Block(stream, units, heads, head_width) for _ in range(blocks)))
        self.norm, self.readout = nn.LayerNorm(stream), nn.Linear(stream, 256)

    def forward(self, text):
        x = self.bytes(text) + self.places.weight[: text.shape[1]]
        return self.readout(self.norm(self.blocks(x)))


def windows(text, starts):
    found = text[starts[:, None] + torch.arange(CONTEXT + 1)]
    return found[:, :-1], found[:, 1:]


def fit(model, budget=None):
    """An ordinary training loop; returns the structure, if a budget asks for one, and sizes over time."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=options.steps, pct_start=0.1)
    draw, sizes, structure = torch.Generator().manual_seed(1), [], None
    if budget:
        example = windows(train, torch.arange(4))[0]
        structure = ds.Structure(
            model, optimizer, example_inputs=(example,), total_steps=options.steps, budget=budget
        )
    for _ in range(options.steps):
        x, y = windows(train, torch.randint(len(train) - CONTEXT, (16,), generator=draw))
        loss = cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if structure:
            structure.step()
            sizes.append({name: width.size for name, width in structure.widths.items()})
    return structure, sizes


@torch.no_grad()
def describe(model):
    x, y = windows(test, torch.linspace(0, len(test) - CONTEXT - 1, 512).long())
    bits = cross_entropy(model(x).flatten(0, 1), y.flatten()).item() / math.log(2)
    return f"{sum(p.numel() for p in model.parameters()):,} parameters, {bits:.3f} bits per byte"


learned = Transformer(64, 384, 6, 16)
structure, sizes = fit(learned, ds.Budget(parameters=110_000))
learned = structure.finish()  # may remove some more
sizes.append({name: width.size for name, width in structure.widths.items()})
print(structure)
usual = Transformer(64, 150, 4, 16)  # all heads together are as wide as the stream
fit(usual)
print(f"learned: {describe(learned)}")
print(f"usual shape: {describe(usual)}")

torch.manual_seed(0)
sample = [*b"def "]
with torch.no_grad():
    for _ in range(300):
        logits = learned(torch.tensor([sample[-CONTEXT:]]))[0, -1]
        sample.append(torch.multinomial((logits / 0.7).softmax(0), 1).item())
print(bytes(sample).decode(errors="replace"))

save(
    "text_transformer", {"sizes": {name: [now[name] for now in sizes] for name in sizes[0]}}, options.picture
)
