"""What a step shows is the same whether its batch comes at once or in parts, divided or not."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import diffstruct as ds

ROWS = 64
CHANCE = torch.Generator().manual_seed(0)
X = torch.randn(ROWS, 5, generator=CHANCE).double()
Y = torch.randint(3, (ROWS,), generator=CHANCE)
MASK = (torch.rand(ROWS, 3, generator=CHANCE) < 0.6).double()
LABELS = (torch.rand(ROWS, 3, generator=CHANCE) < 0.3).double()
KNOWN = torch.where(torch.arange(ROWS) % 4 < 3, Y, -100)  # a quarter of each sixteen is ignored


def masked(out, rows):
    return (F.binary_cross_entropy_with_logits(out, LABELS[rows], reduction="none") * MASK[rows]).sum() / ROWS


LOSSES = {
    "classes": lambda out, rows: F.cross_entropy(out, Y[rows]),
    "classes, some ignored": lambda out, rows: F.cross_entropy(out, KNOWN[rows]),
    "classes, summed": lambda out, rows: F.cross_entropy(out, Y[rows], reduction="sum"),
    "labels": lambda out, rows: F.binary_cross_entropy_with_logits(out, LABELS[rows]),
    "labels, some masked": masked,
    "one label": lambda out, rows: F.binary_cross_entropy_with_logits(out[:, 0], LABELS[rows, 0]),
    "squares": lambda out, rows: F.mse_loss(out, LABELS[rows]),
}
PREDICTIONS = {"classes, some ignored": 48, "labels, some masked": int((MASK.sum(1) > 0).sum()), "squares": 1}


def made(loss):
    torch.manual_seed(0)
    outputs = 1 if loss == "one label" else 3
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, outputs)).double()


def observed(loss, parts, divisor):
    """The tracker after one step over all rows, so many of them at a time."""
    model = made(loss)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    structure = ds.Structure(model, optimizer, example_inputs=(X[:4],), total_steps=10, interval=1)
    for rows in torch.arange(ROWS).split(parts):
        (LOSSES[loss](model(X[rows]), rows) / divisor).backward()
    optimizer.step()
    structure.step()
    return structure.criterion.tracker


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    loss=st.sampled_from(sorted(LOSSES)),
    count=st.sampled_from([1, 2, 4]),
    divisor=st.sampled_from([1.0, 4.0, 1e-3]),
)
def test_a_batch_in_equal_parts_is_the_batch_at_once(loss, count, divisor):
    whole, tracker = observed(loss, [ROWS], 1.0), observed(loss, [ROWS // count] * count, divisor)
    assert tracker.loss.kind == whole.loss.kind
    assert tracker.loss.predictions == whole.loss.predictions == PREDICTIONS.get(loss, ROWS)
    assert tracker.loss.nats == pytest.approx(whole.loss.nats, rel=1e-6)
    np.testing.assert_allclose(tracker.loss.constant, whole.loss.constant, atol=1e-6)
    np.testing.assert_allclose(tracker.fisher["0"], whole.fisher["0"], rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(tracker.mean_slopes["0"], whole.mean_slopes["0"], rtol=1e-5, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(data=st.data(), divisor=st.sampled_from([1.0, 3.0]))
def test_parts_of_any_size_of_a_sum_are_the_batch_at_once(data, divisor):
    cuts = data.draw(st.lists(st.integers(1, ROWS - 1), max_size=4, unique=True))
    parts = np.diff([0, *sorted(cuts), ROWS]).tolist()
    whole, tracker = observed("classes, summed", [ROWS], 1.0), observed("classes, summed", parts, divisor)
    np.testing.assert_allclose(tracker.fisher["0"], whole.fisher["0"], rtol=1e-5, atol=1e-12)
    assert tracker.loss.nats == pytest.approx(whole.loss.nats, rel=1e-6)


@pytest.mark.parametrize("loss", ["classes", "labels", "one label"])
@pytest.mark.parametrize("parts", [[40, 16, 8], [30, 30, 4]])
def test_the_mean_of_a_smaller_part_counts_for_more(loss, parts):
    """As in the last window of an epoch: the loss is the mean of means, and is told to be what it was."""
    whole, tracker = observed(loss, [ROWS], 1.0), observed(loss, parts, 1.0)
    model = made(loss)
    means = [LOSSES[loss](model(X[rows]), rows).item() for rows in torch.arange(ROWS).split(parts)]
    labels = 3 if loss == "labels" else 1  # a prediction are all of them
    assert tracker.loss.kind == whole.loss.kind != "other"
    assert tracker.loss.predictions == ROWS
    assert tracker.loss.nats == pytest.approx(labels * np.mean(means), rel=1e-5)
