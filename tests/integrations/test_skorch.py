"""The skorch callback, with real nets: sizes change, and skorch's own checkpoints go on working."""

import pickle
import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from helpers.exact import same
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, Checkpoint, LoadInitState, TrainEndCheckpoint
from skorch.dataset import ValidSplit
from torch import nn

import diffstruct as ds
from diffstruct.criteria import removal
from diffstruct.integrations.skorch import StructureCallback

X = torch.randn(320, 5, generator=torch.Generator().manual_seed(0)).numpy()
Y = (X[:, :3] * X[:, 2:]).argmax(1)
OPTIONS = {
    "criterion": ds.TaylorImportance(price=3, settling=1e9),
    "rule": ds.Rule(p_add=0.3, p_delete=0.5, max_units=12, grace_period=3),
    "interval": 1,
}
BATCHES, EPOCHS = 8, 4  # of 32, of the four fifths that are trained on


@pytest.fixture(autouse=True)
def measure_at_each_step(monkeypatch):
    monkeypatch.setattr(removal, "FORWARDS_A_STEP", 2)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x):
        return self.layers(x)


def made(*callbacks, seed=0, epochs=EPOCHS, **options):
    torch.manual_seed(seed)
    return NeuralNetClassifier(
        Classifier,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.02,
        max_epochs=epochs,
        batch_size=32,
        train_split=ValidSplit(5, stratified=False),
        callbacks=[*callbacks],
        verbose=0,
        **options,
    )


def everything(net):
    return [each.state_dict() for each in (net.module_, net.optimizer_, net.diffstruct_)]


def test_sizes_are_learned_and_are_in_the_history():
    net = made(StructureCallback(**OPTIONS)).fit(X, Y)
    assert net.diffstruct_.steps == net.diffstruct_.training.total_steps == BATCHES * EPOCHS
    assert net.diffstruct_.history.added() > 0
    assert net.diffstruct_.history.removed() > 0
    sizes = net.history[:, "units/layers.0"]
    assert len(sizes) == EPOCHS
    assert sizes[-1] == net.module_.layers[0].out_features != 8
    assert net.predict(X).shape == (320,)


def test_the_callback_leaves_the_random_numbers_of_the_net_alone():
    plain, watched = (made(*each, iterator_train__shuffle=True) for each in ((), (StructureCallback(),)))
    for net in (plain, watched):
        torch.manual_seed(3)
        net.fit(X, Y)
    at_first = [net.history[0, "train_loss"] for net in (plain, watched)]  # nobody goes so early
    assert at_first[0] == at_first[1]


def test_finish_makes_the_module_plain_and_training_goes_on():
    net = made(StructureCallback(finish=True, **OPTIONS)).fit(X, Y)
    assert not any(each._forward_hooks for each in net.module_.modules())
    assert net.history[-1, "units/layers.0"] == net.module_.layers[0].out_features
    size = net.module_.layers[0].out_features
    net.partial_fit(X, Y)
    assert net.module_.layers[0].out_features == size
    assert len(net.history) == 2 * EPOCHS


def test_another_fit_begins_anew_and_a_partial_one_goes_on():
    net = made(StructureCallback(total_steps=2 * BATCHES * EPOCHS, **OPTIONS)).fit(X, Y)
    first = net.diffstruct_
    net.partial_fit(X, Y)
    assert net.diffstruct_ is first
    assert first.steps == 2 * BATCHES * EPOCHS
    net.fit(X, Y)
    assert net.diffstruct_ is not first
    assert net.diffstruct_.steps == BATCHES * EPOCHS


def test_a_run_that_goes_on_from_a_checkpoint_is_the_one_that_was_not_interrupted(tmp_path):
    total = {"total_steps": BATCHES * EPOCHS, **OPTIONS}
    whole = made(StructureCallback(**total)).fit(X, Y)
    saved = {"dirname": str(tmp_path), "f_diffstruct": "structure.pt"}
    made(StructureCallback(**total), TrainEndCheckpoint(**saved), epochs=2).fit(X, Y)
    end = TrainEndCheckpoint(**saved)
    again = made(StructureCallback(**total), LoadInitState(end), end, seed=1, epochs=2).fit(X, Y)
    assert again.diffstruct_.history.removed() > 0
    assert same(everything(again), everything(whole))
    assert again.history[:, "train_loss"] == whole.history[:, "train_loss"]


class Worse(Callback):
    """Says that the first epoch was the best."""

    def on_epoch_end(self, net, **kwargs):
        net.history.record("best", len(net.history) == 1)


def test_the_best_comes_back_with_its_sizes(tmp_path):
    for finish in (False, True):
        options = {
            "monitor": "best",
            "dirname": str(tmp_path),
            "f_diffstruct": "structure.pt",
            "load_best": True,
        }
        net = made(Worse(), Checkpoint(**options), StructureCallback(finish=finish, **OPTIONS)).fit(X, Y)
        saved = torch.load(tmp_path / "structure.pt", weights_only=True)
        if not finish:
            assert net.diffstruct_.steps == BATCHES
            assert same(net.diffstruct_.state_dict(), saved)
        weights = torch.load(tmp_path / "params.pt", weights_only=True)
        assert len(weights["layers.0.bias"]) >= net.module_.layers[0].out_features
        assert finish or same(net.module_.state_dict(), weights)


def test_saved_weights_are_loaded_into_a_net_that_is_not_trained(tmp_path):
    net = made(StructureCallback(finish=True, **OPTIONS)).fit(X, Y)
    net.save_params(f_params=tmp_path / "params.pt")
    fresh = made(StructureCallback(**OPTIONS), seed=1).initialize()
    ds.resize_to(fresh.module_, torch.load(tmp_path / "params.pt"), (torch.from_numpy(X[:8]),))
    fresh.load_params(f_params=tmp_path / "params.pt")
    np.testing.assert_array_equal(fresh.predict_proba(X), net.predict_proba(X))


def test_a_pickled_net_goes_on():
    net = made(StructureCallback(total_steps=2 * BATCHES * EPOCHS, **OPTIONS)).fit(X, Y)
    again = pickle.loads(pickle.dumps(net))
    assert again.diffstruct_.model is again.module_
    for each in (net, again):
        each.partial_fit(X, Y)
    assert same(everything(again), everything(net))


class Accumulating(NeuralNetClassifier):
    """Steps once in two batches, as skorch's documentation has it."""

    def train_step(self, batch, **fit_params):
        step = self.train_step_single(batch, **fit_params)
        if len(self.history[-1, "batches"]) % 2 == 0:
            self.optimizer_.step()
            self.optimizer_.zero_grad()
        return step


def test_steps_are_those_of_the_optimizer():
    net = made(StructureCallback(total_steps=BATCHES * EPOCHS // 2, **OPTIONS))
    net = Accumulating(**{**net.get_params(deep=False), "callbacks": net.callbacks})
    net.fit(X, Y)
    assert net.diffstruct_.steps == BATCHES * EPOCHS // 2


def test_searches_set_the_options_of_the_structure():
    net = made(("structure", StructureCallback(finish=True, exclude=())), epochs=2)
    grid = {"callbacks__structure__budget": [ds.Budget(parameters=45), None]}
    search = GridSearchCV(net, grid, cv=2, refit=False).fit(X, Y)
    assert len(search.cv_results_["params"]) == 2
    small = clone(net).set_params(callbacks__structure__budget=ds.Budget(parameters=45)).fit(X, Y)
    assert sum(each.numel() for each in small.module_.parameters()) <= 45


def test_without_skorch_the_import_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "diffstruct.integrations.skorch")
    monkeypatch.setitem(sys.modules, "skorch", None)
    with pytest.raises(ImportError, match=r"pip install 'diffstruct\[skorch\]'"):
        import_module("diffstruct.integrations.skorch")
