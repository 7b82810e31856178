"""The Lightning callback, with a real Trainer: sizes change, and its checkpoints go on working."""

import copy
import sys
from functools import partial
from importlib import import_module

import pytest
import torch
from helpers.exact import same
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import diffstruct as ds
from diffstruct.criteria import removal
from diffstruct.integrations.lightning import StructureCallback

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*GPU available"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*treespec"),
    pytest.mark.filterwarnings("ignore:.*tensorboard", "ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`", "ignore:Be aware that when using"),
]
X = torch.randn(320, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, :3] * X[:, 2:]).argmax(1)
OPTIONS = {
    "criterion": ds.TaylorImportance(price=3, settling=1e9),
    "rule": ds.Rule(p_add=0.3, p_delete=0.5, max_units=12, grace_period=3),
    "interval": 1,
}
EPOCHS, STEPS = 4, 40


@pytest.fixture(autouse=True, scope="module")
def measure_at_each_step():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(removal, "FORWARDS_A_STEP", 2)
        yield


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a Trainer that is told nothing else leaves its checkpoints


class Classifier(LightningModule):
    def __init__(self, width=8, rate=0.02):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(5, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, 6),
            nn.ReLU(),
            nn.Linear(6, 3),
        )
        self.example_input_array = X[:32]

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, index):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, batch, index):
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("loss", loss)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.rate)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class TakesSizes(Classifier):
    def on_load_checkpoint(self, checkpoint):
        ds.resize_to(self, checkpoint["state_dict"], (self.example_input_array,))


class Inner(Classifier):
    """Calls the module within, and has no forward of its own."""

    forward = LightningModule.forward

    def training_step(self, batch, index):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, index):
        x, y = batch
        self.log("loss", nn.functional.cross_entropy(self.net(x), y))


def data(batch=32):
    return DataLoader(TensorDataset(X, Y), batch_size=batch)


def trainer(folder, structure, epochs=EPOCHS, **options):
    keep = ModelCheckpoint(folder, "{epoch}", monitor="loss", save_top_k=-1)
    options = {"logger": False, "callbacks": [structure, keep], **options}
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def made(seed=0, kind=Classifier):
    torch.manual_seed(seed)
    return kind()


def everything(model, structure):
    optimizer = structure.structure.training.optimizers[0]
    return [copy.deepcopy(each.state_dict()) for each in (model, optimizer, structure)]


@pytest.mark.parametrize(("kind", "module"), [(Classifier, ""), (Classifier, "net"), (Inner, "net")])
def test_a_fit_that_goes_on_from_a_checkpoint_is_the_one_that_was_not_interrupted(tmp_path, kind, module):
    options = {**OPTIONS, "example_inputs": (X[:32],)}
    whole, structure = made(kind=kind), StructureCallback(module, **options)
    trainer(tmp_path / "whole", structure).fit(whole, data(), data())
    assert structure.structure.steps == STEPS
    assert structure.structure.history.added() > 0
    assert structure.structure.history.removed() > 0

    first = StructureCallback(module, total_steps=STEPS, **options)
    trainer(tmp_path / "part", first, epochs=2).fit(made(kind=kind), data(), data())
    assert first.structure.steps == STEPS // 2

    again, second = made(seed=1, kind=kind), StructureCallback(module, **options)
    fit = trainer(tmp_path / "part", second)
    fit.fit(again, data(), data(), ckpt_path=tmp_path / "part" / "epoch=1.ckpt")
    assert fit.global_step == STEPS
    assert same(everything(again, second), everything(whole, structure))


@pytest.mark.parametrize("kind", [Classifier, TakesSizes])
@pytest.mark.parametrize("epoch", [0, 6])
def test_a_fit_that_starts_from_fewer_units_goes_on(tmp_path, kind, epoch):
    kind = partial(kind, width=64)
    whole, structure = made(kind=kind), StructureCallback(start=2)
    trainer(tmp_path, structure, epochs=10).fit(whole, data(160), data())
    path = tmp_path / f"epoch={epoch}.ckpt"
    units = len(torch.load(path, weights_only=True)["state_dict"]["net.0.bias"])
    assert (
        units == 64
    )  # as many as at first: they fit a model that was built anew, but not one that has begun
    again, second = made(1, kind), StructureCallback(start=2)
    trainer(tmp_path, second, epochs=10).fit(again, data(160), data(), ckpt_path=path)
    assert same(everything(again, second), everything(whole, structure))


def best_of_a_fit(folder, **options):
    model, structure = made(), StructureCallback(**OPTIONS, **options)
    keep = ModelCheckpoint(folder, "best", monitor="loss", save_top_k=1, mode="max")  # a network of early on
    fit = trainer(folder, structure, callbacks=[structure, keep])
    fit.fit(model, data(), data())
    state = torch.load(keep.best_model_path, weights_only=True)["state_dict"]
    assert {key: each.shape for key, each in state.items()} != {
        key: each.shape for key, each in model.state_dict().items()
    }
    return model, structure, fit, keep


def test_the_best_checkpoint_is_validated_and_finished(tmp_path):
    model, structure, fit, keep = best_of_a_fit(tmp_path)
    (found,) = fit.validate(model, data(), ckpt_path="best", verbose=False)
    assert found["loss"] == pytest.approx(keep.best_model_score.item(), abs=1e-6)
    saved = torch.load(keep.best_model_path, weights_only=True)
    assert same(dict(model.state_dict()), dict(saved["state_dict"]))
    assert structure.structure.steps == saved["global_step"] < STEPS
    plain = structure.structure.finish()
    assert plain is model
    assert not model._load_state_dict_pre_hooks


def test_the_best_checkpoint_is_validated_after_the_model_has_become_plain(tmp_path):
    model, _, fit, keep = best_of_a_fit(tmp_path, finish=True)
    assert {type(each) for each in model.net} == {nn.Linear, nn.BatchNorm1d, nn.ReLU}
    assert not model._forward_hooks
    (found,) = fit.validate(model, data(), ckpt_path="best", verbose=False)
    assert found["loss"] == pytest.approx(keep.best_model_score.item(), abs=1e-6)


@pytest.mark.parametrize("module", ["", "net"])
def test_a_model_made_anew_is_tested_with_a_checkpoint(tmp_path, module):
    _, _, _, keep = best_of_a_fit(tmp_path)
    inputs = None if module == "" else (X[:32],)
    structure = StructureCallback(module, example_inputs=inputs)
    again = made(seed=1)
    fit = trainer(tmp_path, structure)
    (found,) = fit.validate(again, data(), ckpt_path=keep.best_model_path, verbose=False)
    assert found["loss"] == pytest.approx(keep.best_model_score.item(), abs=1e-6)
    assert structure.structure is None
    assert not again._load_state_dict_pre_hooks


def test_load_from_checkpoint_and_the_one_line_in_its_place(tmp_path):
    _, _, _, keep = best_of_a_fit(tmp_path)
    saved = torch.load(keep.best_model_path, weights_only=True)
    again = ds.resize_to(Classifier(**saved["hyper_parameters"]), saved["state_dict"], (X,))
    assert same(dict(again.state_dict()), dict(saved["state_dict"]))
    again = TakesSizes.load_from_checkpoint(keep.best_model_path)
    assert same(dict(again.state_dict()), dict(saved["state_dict"]))
    assert again.net[0].out_features == again.net[1].num_features


def test_a_module_that_takes_sizes_itself_goes_on_bit_for_bit(tmp_path):
    whole, structure = made(kind=TakesSizes), StructureCallback(**OPTIONS)
    trainer(tmp_path, structure).fit(whole, data(), data())
    again, second = made(seed=1, kind=TakesSizes), StructureCallback(**OPTIONS)
    trainer(tmp_path, second).fit(again, data(), data(), ckpt_path=tmp_path / "epoch=1.ckpt")
    assert same(everything(again, second), everything(whole, structure))


def by_hand(steps, batch):
    model = made()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    structure = ds.Structure(model, optimizer, example_inputs=(X[:32],), total_steps=steps, **OPTIONS)
    batches = 4 * [*data(batch)]
    for step in range(steps):
        optimizer.zero_grad()
        for x, y in batches[4 * step : 4 * step + 4]:
            loss = nn.functional.cross_entropy(model(x), y)
            (loss / 4).backward()
        optimizer.step()
        scheduler.step()
        structure.step(loss)
    return dict(model.state_dict()), structure.history.measurements


@pytest.mark.parametrize("validate", [False, True])
def test_steps_of_the_optimizer_are_counted_and_validation_makes_no_difference(tmp_path, validate):
    model, structure = made(), StructureCallback(**OPTIONS)
    fit = trainer(tmp_path, structure, callbacks=[structure], accumulate_grad_batches=4, val_check_interval=3)
    fit.fit(model, data(4), data() if validate else None)
    assert fit.fit_loop.total_batch_idx + 1 == 320
    assert structure.structure.steps == structure.structure.training.total_steps == 80
    weights, losses = by_hand(80, 4)
    assert same(dict(model.state_dict()), weights)
    assert structure.structure.history.measurements == losses
    assert len(losses) == 80


class Manual(Classifier):
    """Two optimizers, by hand, of which each steps every second batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, index):
        self.manual_backward(super().training_step(batch, index))
        if index % 2:
            for each in self.optimizers():
                each.step()
                each.zero_grad()

    def configure_optimizers(self):
        layers = [*self.net]
        halves = [nn.ModuleList(layers[:3]), nn.ModuleList(layers[3:])]
        return [torch.optim.Adam(half.parameters(), lr=0.02) for half in halves]


def test_several_optimizers_that_step_by_hand(tmp_path):
    model, structure = made(kind=Manual), StructureCallback(total_steps=20, **OPTIONS)
    trainer(tmp_path, structure).fit(model, data(), data())
    assert structure.structure.steps == 20
    assert structure.structure.history.events
    end = everything(model, structure)
    again, second = made(seed=1, kind=Manual), StructureCallback(total_steps=20, **OPTIONS)
    trainer(tmp_path, second).fit(again, data(), data(), ckpt_path=tmp_path / "epoch=1.ckpt")
    assert same(everything(again, second), end)


def test_steps_that_a_scaler_leaves_out_are_not_counted(tmp_path):
    class Overflows(Classifier):
        def training_step(self, batch, index):
            loss = super().training_step(batch, index)
            return loss * torch.inf if index == 3 else loss

    model, structure = made(kind=Overflows), StructureCallback(**OPTIONS)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    fit = trainer(tmp_path, structure, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    fit.fit(model, data(), data())
    assert structure.structure.steps == STEPS - EPOCHS
    assert structure.structure.history.events
    assert all(each.isfinite().all() for each in model.state_dict().values())

    again, second = made(1, Overflows), StructureCallback(**OPTIONS)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    fit = trainer(tmp_path, second, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    fit.fit(again, data(), data(), ckpt_path=tmp_path / "epoch=1.ckpt")
    assert same(everything(again, second), everything(model, structure))


def test_sizes_are_logged(tmp_path):
    logger = CSVLogger(tmp_path)
    structure = StructureCallback(**OPTIONS)
    trainer(tmp_path, structure, logger=logger, log_every_n_steps=5).fit(made(), data(), data())
    logger.save()
    rows = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    place = [rows[0].split(",").index(name) for name in ("step", "units/net.0")]
    found = [tuple(row.split(",")[each] for each in place) for row in rows[1:]]
    logged = {int(step): float(size) for step, size in found if size}
    assert {0, 5, 10, 40} <= {*logged}
    assert logged[40] == structure.structure.widths["net.0"].size != logged[0] == 8


def test_a_module_within_may_be_compiled(tmp_path):
    torch.compiler.reset()
    model, structure = made(kind=Inner), StructureCallback("net", **OPTIONS, example_inputs=(X[:32],))
    model.net = torch.compile(model.net, backend="eager")
    fit = trainer(tmp_path, structure, callbacks=[structure])
    fit.fit(model, data())
    other, plain = made(kind=Inner), StructureCallback("net", **OPTIONS, example_inputs=(X[:32],))
    trainer(tmp_path, plain, callbacks=[plain]).fit(other, data())
    events = [each.structure.history.events for each in (structure, plain)]
    assert events[0] == events[1]
    assert structure.structure.history.removed() > 0


def test_what_cannot_be_is_said(tmp_path):
    model, structure = made(), StructureCallback(**OPTIONS)
    with pytest.raises(ds.ConfigurationError, match="give total_steps"):
        trainer(tmp_path, structure, epochs=-1).fit(model, data())
    assert not model._load_state_dict_pre_hooks
    with pytest.raises(ds.StructureError, match="compile the module within"):
        trainer(tmp_path, structure).fit(torch.compile(made(), backend="eager"), data())
    averaging = StochasticWeightAveraging(0.01)
    with pytest.raises(ds.StructureError, match="the copy that StochasticWeightAveraging averages"):
        trainer(tmp_path, structure, callbacks=[structure, averaging]).fit(made(), data())
    fit = trainer(tmp_path, structure, epochs=1)
    fit.fit(model, data(), data())
    with pytest.raises(ds.StructureError, match="make model, callback and Trainer anew"):
        trainer(tmp_path, structure, epochs=1).fit(model, data(), data())


def test_without_lightning_the_import_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "diffstruct.integrations.lightning")
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    with pytest.raises(ImportError, match=r"pip install 'diffstruct\[lightning\]'"):
        import_module("diffstruct.integrations.lightning")
