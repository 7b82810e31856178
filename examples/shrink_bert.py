"""Train a small BERT to tell which package some source code is from; fine-tune it to a third of its size.

`python examples/shrink_bert.py` needs `pip install 'diffstruct[transformers]'`. The text is that of
packages in Python's standard library. Nothing is downloaded: the model is built from a configuration, and
trained at its full size first. It is saved as any model of transformers is, and loaded again. Beside it, a
uniform BERT of the size that is left trains from fresh weights for as many steps as both phases had
together.
"""

import argparse
import json
import re
import sysconfig
from collections import Counter
from copy import deepcopy
from pathlib import Path

import torch
from pictures import save
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification

import diffstruct as ds

PACKAGES = ["asyncio", "email", "http", "logging", "multiprocessing", "unittest"]
TOKENS, WORDS = 32, 1000
options = argparse.ArgumentParser(description=__doc__)
options.add_argument("--steps", type=int, default=400, help="training steps of each phase")
options.add_argument("--picture", type=Path, default=Path("runs/shrink_bert.png"))
options = options.parse_args()

pieces, labels, testing = [], [], []
for label, package in enumerate(PACKAGES):
    for number, file in enumerate(sorted(Path(sysconfig.get_path("stdlib"), package).glob("*.py"))):
        words = re.findall(r"\w+|[^\w\s]", file.read_text(encoding="utf-8"))
        for begin in range(0, len(words) - TOKENS, TOKENS):
            pieces.append(words[begin : begin + TOKENS])
            labels.append(label)
            testing.append(number % 4 == 1)  # every fourth file of a package is for testing
labels, testing = torch.tensor(labels), torch.tensor(testing)
known = Counter(word for piece, tested in zip(pieces, testing, strict=True) if not tested for word in piece)
index = {word: 1 + at for at, (word, _) in enumerate(known.most_common(WORDS - 1))}  # 0 is any other word
tokens = torch.tensor([[index.get(word, 0) for word in piece] for piece in pieces])
train, test = (~testing).nonzero()[:, 0], testing.nonzero()[:, 0]


def bert(stream, heads, units):
    torch.manual_seed(0)
    sizes = {"hidden_size": stream, "num_attention_heads": heads, "intermediate_size": units}
    config = BertConfig(
        vocab_size=WORDS,
        num_hidden_layers=2,
        max_position_embeddings=TOKENS,
        num_labels=len(PACKAGES),
        **sizes,
    )
    return BertForSequenceClassification(config)


def fit(model, steps, budget=None):
    """An ordinary training loop; returns the structure, if a budget asks for one, and sizes over time."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    draw, sizes, structure = torch.Generator().manual_seed(1), [], None
    if budget:
        example = {"input_ids": tokens[train[:8]], "labels": labels[train[:8]]}
        structure = ds.Structure(model, optimizer, example_inputs=example, total_steps=steps, budget=budget)
    model.train()
    for _ in range(steps):
        batch = train[torch.randint(len(train), (32,), generator=draw)]
        loss = model(input_ids=tokens[batch], labels=labels[batch]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if structure:
            structure.step()
            sizes.append({name: width.size for name, width in structure.widths.items()})
    return structure, sizes


def size(model):
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def describe(model):
    model.eval()
    right = [
        (model(input_ids=tokens[part]).logits.argmax(1) == labels[part]).sum() for part in test.split(256)
    ]
    return f"{size(model):,} parameters, {sum(right) / len(test):.1%} of {len(test):,} pieces right"


full = bert(64, 4, 256)
fit(full, options.steps)
print(f"trained at its full size: {describe(full)}")
print(f"the most frequent package is {labels[test].bincount().max() / len(test):.1%} of the pieces")

small = deepcopy(full)
structure, sizes = fit(small, options.steps, ds.Budget(parameters=size(full) // 3))
small = structure.finish()  # may remove some more
sizes.append({name: width.size for name, width in structure.widths.items()})
print(structure)
print(f"shrunk: {describe(small)}")

folder = options.picture.with_suffix("")
small.save_pretrained(folder)
(folder / "sizes.json").write_text(json.dumps(sizes[-1]))  # a BertConfig has one number for all layers

empty = BertForSequenceClassification(BertConfig.from_pretrained(folder))
state, learned = load_file(folder / "model.safetensors"), json.loads((folder / "sizes.json").read_text())
again = ds.resize_to(empty, state, {"input_ids": tokens[:8]}, sizes=learned)
print(f"loaded from {folder}: {describe(again)}")

stream = max(n for n in range(4, 65, 4) if n == 4 or size(bert(n, 4, 4 * n)) <= size(small))
uniform = bert(stream, 4, 4 * stream)
fit(uniform, 2 * options.steps)
print(f"uniform, {stream} wide, from fresh weights: {describe(uniform)}")
fit(full, options.steps)
print(f"fine-tuned at its full size: {describe(full)}")

save("shrink_bert", {"sizes": {name: [now[name] for now in sizes] for name in sizes[0]}}, options.picture)
