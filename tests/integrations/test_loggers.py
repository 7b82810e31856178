"""What loggers are told, read back from what TensorBoard was given."""

import csv
from itertools import pairwise

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

import diffstruct as ds
from diffstruct.integrations.loggers import StructureWriter, measures

X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)


def made(steps=40):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    options = {
        "criterion": ds.TaylorImportance(price=3, settling=1e9),
        "rule": ds.Rule(p_add=0.3, max_units=16, grace_period=3),
        "interval": 1,
    }
    return model, optimizer, ds.Structure(model, optimizer, example_inputs=(X,), total_steps=steps, **options)


def train(model, optimizer, structure, steps, log):
    for step in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), Y).backward()
        optimizer.step()
        structure.step()
        if step % 4 == 3:
            log(step + 1)


def read(folder):
    found = EventAccumulator(str(folder), size_guidance={"tensors": 0, "histograms": 0, "scalars": 0})
    return found.Reload()


def text(event):
    return event.tensor_proto.string_val[0].decode()


def test_sizes_importances_and_events_are_in_the_event_file(tmp_path):
    model, optimizer, structure = made()
    sizes, importances = {}, {}
    with SummaryWriter(tmp_path) as writer:
        log = StructureWriter(writer)

        def at(step):
            log.write(structure)
            sizes[step] = measures(structure)
            importances[step] = structure.criterion.importance(structure.widths["0"]).numpy()

        train(model, optimizer, structure, 40, at)
        structure.finish()
        log.write(structure, step=41)
        sizes[41] = measures(structure)
    found = read(tmp_path)
    assert structure.history.removed() > 0
    assert structure.history.added() > 0
    assert {*found.Tags()["scalars"]} == {*measures(structure)}
    for tag in measures(structure):
        assert {e.step: e.value for e in found.Scalars(tag)} == {s: each[tag] for s, each in sizes.items()}
    histograms = {each.step: each.histogram_value for each in found.Histograms("importance/0")}
    assert {*histograms} == {*importances}  # none of a finished structure
    for step, values in importances.items():
        assert histograms[step].num == len(values)
        assert histograms[step].max == pytest.approx(min(values.max(), 1e18))
    told = [(e.step, text(e)) for tag in ("0", "2") for e in found.Tensors(f"events/{tag}/text_summary")]
    expected = [event for tag in ("0", "2") for event in structure.history.events if event.width == tag]
    assert [step for step, _ in told] == [event.step for event in expected]
    for (_, words), event in zip(told, expected, strict=True):
        assert words.endswith(f": {event.size} units")
        assert (f"added {event.added}" in words) == (event.added > 0)
        assert ("removed " + ", ".join(map(str, event.removed)) in words) == bool(event.removed)


def test_the_numbers_for_any_logger_are_those_of_the_model(tmp_path):
    model, optimizer, structure = made()
    rows = []
    train(model, optimizer, structure, 40, lambda step: rows.append({"step": step, **measures(structure)}))
    for before, after in pairwise(rows):
        for name in structure.widths:
            added = after[f"added/{name}"] - before[f"added/{name}"]
            removed = after[f"removed/{name}"] - before[f"removed/{name}"]
            assert min(added, removed) >= 0
            assert after[f"units/{name}"] - before[f"units/{name}"] == added - removed
    assert rows[-1]["units/0"] == model[0].out_features
    assert rows[-1]["parameters"] == sum(each.numel() for each in model.parameters())
    with open(tmp_path / "log.csv", "w") as file:  # nothing but plain numbers under plain names
        writer = csv.DictWriter(file, rows[0])
        writer.writerows(rows)
    assert np.isfinite(np.loadtxt(tmp_path / "log.csv", delimiter=",")).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*GPU available")
@pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning", "ignore:.*treespec", "ignore:Starting from v1.9"
)
def test_lightnings_tensorboard_logger_is_told_as_well(tmp_path):
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.loggers import TensorBoardLogger
    from torch.utils.data import DataLoader, TensorDataset

    from diffstruct.integrations.lightning import StructureCallback

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.net = made()[0]
            self.example_input_array = X

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.02)

    rule = ds.Rule(p_add=0.3, max_units=16, grace_period=3)
    criterion = ds.TaylorImportance(price=3, settling=1e9)
    callback = StructureCallback(interval=1, rule=rule, criterion=criterion)
    logger = TensorBoardLogger(tmp_path, name="", version="")
    options = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "log_every_n_steps": 4,
    }
    trainer = Trainer(max_epochs=8, callbacks=[callback], logger=logger, accelerator="cpu", **options)
    trainer.fit(Module(), DataLoader(TensorDataset(X, Y), batch_size=16))
    found, structure = read(tmp_path), callback.structure
    assert found.Scalars("units/net.0")[-1].value == structure.widths["net.0"].size
    assert found.Histograms("importance/net.0")
    told = [each.step for tag in found.Tags()["tensors"] for each in found.Tensors(tag)]
    assert len(told) > 0
    assert sorted(told) == sorted(event.step for event in structure.history.events)
