"""The estimators for scikit-learn, by its own checks and by what they promise beside."""

import importlib
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_linnerud
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

import diffstruct as ds
from diffstruct.integrations.perceptron import Standardise, hidden_widths, perceptron
from diffstruct.integrations.samples import standardise
from diffstruct.integrations.sklearn import GrowingClassifier, GrowingRegressor

CHECKS = """
import json, sys
from sklearn.utils.estimator_checks import check_estimator
from diffstruct.integrations.sklearn import GrowingClassifier, GrowingRegressor
estimator = {"classifier": GrowingClassifier, "regressor": GrowingRegressor}[sys.argv[1]](max_iter=40)
print(json.dumps([(each["check_name"], each["status"]) for each in check_estimator(estimator)]))
"""
CHANCE = np.random.RandomState(0)
X = CHANCE.randn(60, 4)
LABELS = np.array(["no", "yes", "maybe"])[(X[:, 0] * X[:, 1] > 0).astype(int) + (X[:, 2] > 1)]
Y = X[:, 0] * X[:, 1] + 10.0


def both(**options):
    options = {"hidden_layer_sizes": (12,), "max_iter": 20, "random_state": 0, "batch_size": 16, **options}
    return (GrowingClassifier(**options), LABELS), (GrowingRegressor(**options), Y)


def weights_of(estimator):
    return [each.detach().clone() for each in estimator.module_.parameters()]


def same(one, other):
    one, other = weights_of(one), weights_of(other)
    return len(one) == len(other) and all(map(torch.equal, one, other))


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(4, 60), rare=st.integers(1, 3), low=st.floats(-1e3, 1e3), distance=st.floats(0.1, 1e3)
)
def test_a_rare_value_of_a_feature_of_two_is_at_a_distance_of_one(rows, rare, low, distance):
    word = np.full(rows, low)
    word[:rare] += distance
    values, weight = np.stack([word, np.arange(rows)], 1), 1.0 + np.arange(rows) % 3
    scaled = standardise(values, weight, torch.float64)(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(np.average(scaled, 0, weight), 0, atol=1e-9)
    assert np.ptp(scaled[:, 0]) == pytest.approx(1)
    assert np.average(scaled[:, 1] ** 2, 0, weight) == pytest.approx(1)
    targets = standardise(values, weight, torch.float64, back=True).undo(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(np.average(targets**2, 0, weight), 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_all_of_scikit_learns_checks_pass_and_none_is_left_out(kind):
    """In a process of its own, since one of the checks needs a setting that SciPy reads at its import."""
    env = {
        **os.environ,
        "SCIPY_ARRAY_API": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", CHECKS, kind], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    statuses = json.loads(done.stdout)
    assert len(statuses) > 50
    assert {status for _, status in statuses} == {"passed"}


@pytest.mark.slow
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 999), which=st.sampled_from([0, 1]))
def test_a_weight_of_two_is_the_sample_twice_to_the_bit(seed, which):
    """In batches that are smaller than the data, and in any order of the samples."""
    chance = np.random.RandomState(seed)
    count = chance.randint(0, 4, len(X))
    order = chance.permutation(count.sum())
    weighted, y = both(max_iter=8)[which]
    repeated = clone(weighted)
    weighted.fit(X, y, sample_weight=count)
    repeated.fit(X.repeat(count, 0)[order], y.repeat(count)[order])
    assert same(weighted, repeated)
    assert weighted.loss_curve_ == repeated.loss_curve_


def test_the_same_random_state_gives_the_same_bits_and_nobody_elses_numbers_change():
    for estimator, y in both():
        torch.manual_seed(1)
        mine, numpys = torch.get_rng_state(), np.random.mtrand._rand.get_state()[1].copy()
        first = clone(estimator).fit(X, y)
        assert torch.equal(torch.get_rng_state(), mine)
        assert np.array_equal(np.random.mtrand._rand.get_state()[1], numpys)
        torch.manual_seed(2)
        assert same(first, clone(estimator).fit(X, y))
        assert not same(first, clone(estimator).set_params(random_state=1).fit(X, y))


def test_passes_one_by_one_are_a_fit_and_may_be_pickled_between():
    for estimator, y in both():
        whole = clone(estimator).fit(X, y)
        first = {"classes": np.unique(y)} if estimator.__class__ is GrowingClassifier else {}
        estimator.partial_fit(X, y, **first)
        for step in range(1, 20):
            assert estimator._growing.structure is not None
            if step == 10:
                estimator = pickle.loads(pickle.dumps(estimator))
            estimator.partial_fit(X, y)
        assert same(estimator, whole)
        assert estimator.loss_curve_ == whole.loss_curve_
        assert estimator.n_iter_ == whole.n_iter_ == 20
        assert estimator._growing.structure is None
        sizes = estimator.n_units_
        estimator.partial_fit(X, y)  # sizes stay, and it goes on learning
        assert estimator.n_units_ == sizes
        assert not same(estimator, whole)


def test_a_fit_forgets_what_was_before():
    classifier, _ = both(max_iter=3)[0]
    classifier.fit(X, LABELS).fit(X[:, :2], LABELS == "yes")
    assert classifier.classes_.tolist() == [False, True]
    assert classifier.n_features_in_ == 2
    assert classifier.n_iter_ == len(classifier.loss_curve_) == 3
    regressor, _ = both(max_iter=3)[1]
    assert regressor.fit(X, Y).fit(X, np.stack([Y, Y], 1)).predict(X).shape == (60, 2)


def test_the_module_takes_features_as_they_are_and_nothing_of_the_training_is_left():
    for estimator, y in both(hidden_layer_sizes=(12, 8)):
        estimator.fit(X, y)
        module = estimator.module_
        with torch.no_grad():
            outputs = module(torch.from_numpy(X))
        if isinstance(estimator, GrowingClassifier):
            np.testing.assert_allclose(outputs.softmax(1), estimator.predict_proba(X))
        else:
            np.testing.assert_array_equal(outputs[:, 0], estimator.predict(X))
        kinds = {type(each) for each in module.modules()}
        plain = {torch.nn.Sequential, torch.nn.Linear, torch.nn.ReLU, torch.nn.Identity}
        assert kinds <= plain | {Standardise}
        assert not any(each._forward_hooks for each in module.modules())
        assert not any(each._post_accumulate_grad_hooks for each in module.parameters())
        assert [each.out_features for each in module[1] if isinstance(each, torch.nn.Linear)][:-1] == [
            *estimator.n_units_
        ]


def test_the_widths_are_those_that_find_widths_finds():
    network = perceptron([4, 12, 8, 3], "tanh", torch.float32, torch.Generator().manual_seed(0))
    found, mine = ds.find_widths(network, (torch.randn(8, 4),)), hidden_widths(network)
    assert str(mine).split("\n\n")[0] == str(found).split("\n\n")[0]
    assert [*mine.widths] == [*found.widths]


def test_units_of_features_and_targets_do_not_matter():
    for estimator, y in both(max_iter=10):
        plain = clone(estimator).fit(X, y)
        other = clone(estimator).fit(X * [1e-6, 1.0, 1e6, 3.0] + [0, 5, 1e7, -2], y)
        X_new = X[:10] * [1e-6, 1.0, 1e6, 3.0] + [0, 5, 1e7, -2]
        if isinstance(estimator, GrowingClassifier):
            np.testing.assert_allclose(other.predict_proba(X_new), plain.predict_proba(X[:10]), rtol=1e-5)
        else:
            np.testing.assert_allclose(other.predict(X_new), plain.predict(X[:10]), rtol=1e-5)
            scaled = clone(estimator).fit(X, 1e4 * y - 7)
            np.testing.assert_allclose((scaled.predict(X) + 7) / 1e4, plain.predict(X), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_computed_with(dtype):
    for estimator, y in both(max_iter=2):
        estimator.fit(X.astype(dtype), y)
        assert {str(each.dtype) for each in estimator.module_.parameters()} == {f"torch.{np.dtype(dtype)}"}


def test_columns_pipelines_and_searches():
    frame = pd.DataFrame(X, columns=list("abcd"))
    classifier, _ = both(max_iter=3)[0]
    assert classifier.fit(frame, LABELS).feature_names_in_.tolist() == list("abcd")
    with pytest.raises(ValueError, match="feature names"):
        classifier.predict(frame[["b", "a", "c", "d"]])
    line = make_pipeline(PolynomialFeatures(), classifier)
    search = GridSearchCV(line, {"growingclassifier__price": [0.1, 3.0]}, cv=2).fit(frame, LABELS)
    assert search.best_estimator_.predict(frame).shape == (60,)
    assert cross_val_score(both(max_iter=3)[1][0], X, Y, cv=3).shape == (3,)


@pytest.mark.slow
def test_a_budget_is_met_and_units_go_where_they_are_not_worth_their_price():
    digits, y = load_digits(return_X_y=True)
    train, test, y_train, y_test = train_test_split(digits, y, test_size=0.3, random_state=0)
    budget = {"budget": 2000, "random_state": 0, "max_iter": 60}
    model = GrowingClassifier(**budget).fit(train.astype(np.float32), y_train)
    assert sum(each.numel() for each in model.module_.parameters()) <= 2000
    assert model.score(test, y_test) > 0.93
    assert model.loss_curve_[-1] < 0.2 * model.loss_curve_[0]
    linnerud = load_linnerud(return_X_y=True)
    assert GrowingRegressor(max_iter=5).fit(*linnerud).predict(linnerud[0]).shape == (20, 3)


@pytest.mark.slow
def test_data_that_are_not_scaled_are_learned():
    X_train, X_test, y_train, y_test = train_test_split(
        *load_breast_cancer(return_X_y=True), test_size=0.3, random_state=0
    )
    assert GrowingClassifier(random_state=0, max_iter=50).fit(X_train, y_train).score(X_test, y_test) > 0.95
    X_train, X_test, y_train, y_test = train_test_split(
        *load_diabetes(return_X_y=True), test_size=0.3, random_state=0
    )
    assert GrowingRegressor(random_state=0, max_iter=100).fit(X_train, y_train).score(X_test, y_test) > 0.3


def test_views_that_are_reversed_or_read_only_are_predicted_as_copies_are(recwarn):
    read_only = X.copy()
    read_only.flags.writeable = False
    for estimator, y in both(max_iter=2):
        estimator.fit(X, y)
        expected = estimator.predict(X)
        np.testing.assert_array_equal(estimator.predict(X[::-1]), expected[::-1])
        np.testing.assert_array_equal(estimator.predict(read_only), expected)
    assert not [each for each in recwarn if "not writable" in str(each.message)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_layer_sizes": ()}, "hidden_layer_sizes"),
        ({"hidden_layer_sizes": (3, 0)}, "hidden_layer_sizes"),
        ({"activation": "swish"}, "activation must be one of"),
        ({"activation": ["relu"]}, "activation must be one of"),
        ({"price": "a"}, "price"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_iter": 0}, "max_iter"),
        ({"price": -1.0}, "price"),
        ({"budget": 0}, "parameters"),
    ],
)
def test_parameters_that_cannot_be_are_refused(options, message):
    for estimator, y in both(**options):
        with pytest.raises(ValueError, match=message):
            estimator.fit(X, y)
        with pytest.raises(NotFittedError):
            estimator.predict(X)


def test_targets_that_cannot_be_are_refused():
    (classifier, _), (regressor, _) = both(max_iter=2)
    with pytest.raises(ValueError, match="1 class"):
        clone(classifier).fit(X, np.zeros(60, int))
    with pytest.raises(ValueError, match="classes must be passed"):
        clone(classifier).partial_fit(X, LABELS)
    classifier.partial_fit(X, LABELS, classes=np.unique(LABELS))
    with pytest.raises(ValueError, match="in the first call"):
        classifier.partial_fit(X, LABELS, classes=["no", "yes"])
    with pytest.raises(ValueError, match="not among"):
        classifier.partial_fit(X, np.full(60, "never"))
    with pytest.raises(ValueError, match="had 1 before"):
        regressor.partial_fit(X, Y).partial_fit(X, np.stack([Y, Y], 1))


def test_without_scikit_learn_its_install_command_is_named(monkeypatch):
    for name in ("sklearn", "estimator", "samples"):
        monkeypatch.delitem(sys.modules, f"diffstruct.integrations.{name}")
    monkeypatch.setitem(sys.modules, "sklearn.utils", None)
    with pytest.raises(ImportError, match=r"pip install 'diffstruct\[sklearn\]'"):
        importlib.import_module("diffstruct.integrations.sklearn")


def test_a_progress_bar_is_shown_if_wanted(capsys):
    both(max_iter=2, verbose=True)[1][0].fit(X, Y)
    assert "units 1" in capsys.readouterr().out
    both(max_iter=2)[1][0].fit(X, Y)
    assert not capsys.readouterr().out
