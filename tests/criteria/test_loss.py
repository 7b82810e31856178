"""What a loss is told to be by its gradient at the outputs, against what it is."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from diffstruct.criteria.loss import class_dim, nats, recognise, rows_of, targets, won

SEEDS = st.integers(0, 2**32 - 1)
FACTORS = st.floats(-3, 3).map(lambda power: 10.0**power)


def seen(loss, outputs):
    """Outputs and the gradient of a loss there, as they are looked at: one prediction a row."""
    outputs = outputs.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(outputs), outputs)
    dim = class_dim(outputs, gradient)
    return rows_of(outputs.detach(), dim), rows_of(gradient, dim)


def told(loss, outputs):
    return recognise(*seen(loss, outputs))


def drawn(seed, *shape, spread=2.0):
    chance = torch.Generator().manual_seed(seed)
    return spread * torch.randn(shape, generator=chance, dtype=torch.float64)


def classes_drawn(seed, classes, *shape):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed + 1))


def softmax(outputs):
    raised = np.exp(outputs - outputs.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def cross_entropies(outputs, target):
    """Of each prediction, in nats, in NumPy."""
    return -(target * np.log(softmax(outputs))).sum(1)


@settings(max_examples=60)
@given(
    seed=SEEDS,
    rows=st.integers(3, 40),
    classes=st.integers(2, 12),
    factor=FACTORS,
    reduction=st.sampled_from(["mean", "sum"]),
)
def test_a_cross_entropy_is_told_at_any_scale(seed, rows, classes, factor, reduction):
    outputs, y = drawn(seed, rows, classes), classes_drawn(seed, classes, rows)
    found = told(lambda out: factor * F.cross_entropy(out, y, reduction=reduction), outputs)
    onehot = np.eye(classes)[y.numpy()]
    assert found.kind == "softmax"
    assert found.scale == pytest.approx(factor * (rows if reduction == "sum" else 1), rel=1e-4)
    assert found.predictions == rows
    assert found.nats == pytest.approx(cross_entropies(outputs.numpy(), onehot).mean(), rel=1e-4)
    np.testing.assert_allclose(found.constant, onehot.mean(0), atol=1e-5)


@settings(max_examples=40)
@given(seed=SEEDS, rows=st.integers(4, 40), classes=st.integers(2, 8), factor=FACTORS)
def test_targets_are_those_of_the_loss(seed, rows, classes, factor):
    outputs, y = drawn(seed, rows, classes), classes_drawn(seed, classes, rows)
    found = targets("softmax", *seen(lambda out: factor * F.cross_entropy(out, y), outputs))
    np.testing.assert_allclose(found, np.eye(classes)[y.numpy()], atol=1e-6)
    labels = (drawn(seed + 2, rows, classes) > 0).double()
    rows_seen = seen(lambda out: factor * F.binary_cross_entropy_with_logits(out, labels), outputs)
    assert torch.equal(targets("sigmoid", *rows_seen).double(), labels)
    assert targets("other", *rows_seen) is None


@settings(max_examples=30)
@given(seed=SEEDS, factor=FACTORS)
def test_targets_that_are_ignored_are_no_predictions(seed, factor):
    outputs, y = drawn(seed, 30, 5), classes_drawn(seed, 5, 30)
    ignored = drawn(seed + 2, 30) > 0
    y[ignored] = -100
    assume(0 < ignored.sum() < 27)
    found = told(lambda out: factor * F.cross_entropy(out, y), outputs)
    live = ~ignored.numpy()
    onehot = np.eye(5)[y.numpy()[live]]
    assert (found.kind, found.predictions) == ("softmax", live.sum())
    assert found.scale == pytest.approx(factor, rel=1e-4)
    assert found.nats == pytest.approx(cross_entropies(outputs.numpy()[live], onehot).mean(), rel=1e-4)
    np.testing.assert_allclose(found.constant, onehot.mean(0), atol=1e-5)


@settings(max_examples=30)
@given(seed=SEEDS, factor=FACTORS)
def test_class_weights_weigh_the_mean(seed, factor):
    outputs, y = drawn(seed, 40, 4), classes_drawn(seed, 4, 40)
    weight = torch.tensor([0.2, 1.0, 3.0, 9.0], dtype=torch.float64)
    found = told(lambda out: factor * F.cross_entropy(out, y, weight), outputs)
    share = weight[y].numpy() / weight[y].sum().item()
    onehot = np.eye(4)[y.numpy()]
    assert (found.kind, found.predictions) == ("softmax", 40)
    assert found.scale == pytest.approx(factor, rel=1e-4)
    assert found.nats == pytest.approx((share * cross_entropies(outputs.numpy(), onehot)).sum(), rel=1e-4)
    np.testing.assert_allclose(found.constant, share @ onehot, atol=1e-5)


@settings(max_examples=30)
@given(seed=SEEDS, factor=FACTORS)
def test_smoothed_labels_are_told_about(seed, factor):
    """The scale only if some class is likely where it is hardly a target: with 100 predictions, nearly."""
    outputs, y = drawn(seed, 100, 6, spread=3.0), classes_drawn(seed, 6, 100)
    found = told(lambda out: factor * F.cross_entropy(out, y, label_smoothing=0.1), outputs)
    smooth = 0.9 * np.eye(6)[y.numpy()] + 0.1 / 6
    assert (found.kind, found.predictions) == ("softmax", 100)
    assert found.scale == pytest.approx(factor, rel=0.03)
    assert found.nats == pytest.approx(cross_entropies(outputs.numpy(), smooth).mean(), rel=0.05)
    np.testing.assert_allclose(found.constant, smooth.mean(0), atol=0.02)


@settings(max_examples=60)
@given(
    seed=SEEDS,
    classes=st.integers(3, 9),
    scale=st.floats(-3, 1),
    dim=st.sampled_from([1, -1]),
    factor=FACTORS,
)
def test_an_error_of_outputs_that_are_centred_is_no_cross_entropy(seed, classes, scale, dim, factor):
    """Its gradient sums to zero over them, as that of a cross-entropy does. Of two, it tells nothing else."""
    shape = (9, 7, classes) if dim == -1 else (9, classes, 7)
    raw, goal = drawn(seed, *shape), 10**scale * drawn(seed + 1, *shape)
    outputs, goal = (each - each.mean(dim, keepdim=True) for each in (raw, goal))
    assert told(lambda out: factor * F.mse_loss(out, goal), outputs).kind == "other"
    smaller = 10**scale * outputs
    assert told(lambda out: factor * F.mse_loss(out, goal), smaller).kind == "other"


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_a_cross_entropy_of_outputs_that_are_centred_is_one(smoothing):
    raw, y = drawn(0, 100, 6, spread=3.0), torch.arange(100) % 6
    loss = lambda out: F.cross_entropy(out, y, label_smoothing=smoothing)  # noqa: E731
    found = told(loss, raw - raw.mean(1, keepdim=True))
    assert (found.kind, found.predictions) == ("softmax", 100)
    mixed = 0.7 * F.one_hot(y, 6) + 0.3 * F.one_hot((y * 5 + 1) % 6, 6)
    assert told(lambda out: F.cross_entropy(out, mixed), raw - raw.mean(1, keepdim=True)).kind == "softmax"


@settings(max_examples=30)
@given(seed=SEEDS, factor=FACTORS)
def test_soft_targets_are_told(seed, factor):
    """Such as another network's outputs: most of them far from uniform."""
    outputs, soft = drawn(seed, 100, 6, spread=3.0), drawn(seed + 1, 100, 6, spread=3.0).softmax(1)
    loss = lambda out: factor * F.cross_entropy(out, soft)  # noqa: E731
    found = told(loss, outputs)
    assert (found.kind, found.predictions) == ("softmax", 100)
    assert found.scale == pytest.approx(factor, rel=0.01)
    np.testing.assert_allclose(targets("softmax", *seen(loss, outputs)), soft, atol=0.01)


@pytest.mark.parametrize("shape", [(3, 6, 4, 5), (3, 6, 7), (2, 6, 3, 2, 2)])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_the_classes_of_images_lie_along_the_second_dimension(shape, factor):
    outputs = drawn(0, *shape)
    y = classes_drawn(0, 6, shape[0], *shape[2:])
    found = told(lambda out: factor * F.cross_entropy(out, y), outputs)
    assert (found.kind, found.predictions) == ("softmax", y.numel())
    assert found.scale == pytest.approx(factor, rel=1e-4)
    assert found.nats == pytest.approx(F.cross_entropy(outputs, y).item(), rel=1e-4)


def test_the_classes_of_sequences_lie_along_the_last_dimension():
    outputs, y = drawn(0, 3, 7, 6), classes_drawn(0, 6, 3, 7)
    found = told(lambda out: F.cross_entropy(out.flatten(0, 1), y.flatten()), outputs)
    assert (found.kind, found.predictions, len(found.constant)) == ("softmax", 21, 6)


def test_one_row_is_one_prediction():
    values = torch.arange(24.0).view(2, 3, 4)
    expected = [[values[b, c, i].item() for c in range(3)] for b in range(2) for i in range(4)]
    assert rows_of(values, 1).tolist() == expected
    assert rows_of(values, -1).tolist() == values.view(6, 4).tolist()
    assert rows_of(values.bfloat16(), 1).dtype in (torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("factor", [1.0, 1024.0])
@pytest.mark.parametrize("classes", [2, 10])
def test_rounding_to_16_bits_hides_nothing(dtype, factor, classes):
    """Outputs are rounded before the loss, as under automatic mixed precision, and gradients after it."""
    outputs, y = drawn(0, 64, classes).to(dtype), classes_drawn(0, classes, 64)
    out = outputs.float().requires_grad_()
    (gradient,) = torch.autograd.grad(factor * F.cross_entropy(out, y), out)
    found = recognise(rows_of(outputs, 1), rows_of(gradient.to(dtype), 1))
    assert (found.kind, found.predictions) == ("softmax", 64)
    assert found.scale == pytest.approx(factor, rel=0.02)
    assert found.nats == pytest.approx(F.cross_entropy(outputs.float(), y).item(), rel=0.05)


@settings(max_examples=60)
@given(
    seed=SEEDS,
    rows=st.integers(4, 40),
    labels=st.integers(1, 6),
    factor=FACTORS,
    reduction=st.sampled_from(["mean", "sum"]),
)
def test_a_binary_cross_entropy_is_told_at_any_scale(seed, rows, labels, factor, reduction):
    """Its unit are the nats of one prediction of all labels."""
    outputs, y = drawn(seed, rows, labels), (drawn(seed + 1, rows, labels) > 0).double()
    found = told(
        lambda out: factor * F.binary_cross_entropy_with_logits(out, y, reduction=reduction), outputs
    )
    p, t = 1 / (1 + np.exp(-outputs.numpy())), y.numpy()
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(1).mean()
    assert (found.kind, found.predictions) == ("sigmoid", rows)
    assert found.scale == pytest.approx(factor * (rows if reduction == "sum" else 1 / labels), rel=1e-4)
    assert found.nats == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(found.constant, [t.mean(0), 1 - t.mean(0)], atol=1e-12)


@settings(max_examples=60)
@given(seed=SEEDS, rows=st.integers(8, 40), labels=st.integers(2, 6), factor=FACTORS)
def test_labels_whose_loss_is_masked_are_none(seed, rows, labels, factor):
    outputs, y = drawn(seed, rows, labels), (drawn(seed + 1, rows, labels) > 0).double()
    mask = (drawn(seed + 2, rows, labels) > 0).double()
    mask[0], mask[1:, 0] = 0.0, 1.0  # one row has no label at all, the others have one at least
    loss = lambda out: factor * (F.binary_cross_entropy_with_logits(out, y, weight=mask, reduction="sum"))  # noqa: E731
    found = told(loss, outputs)
    p, t, m = 1 / (1 + np.exp(-outputs.numpy())), y.numpy(), mask.numpy()
    expected = -(m * (t * np.log(p) + (1 - t) * np.log(1 - p))).sum() / (rows - 1)
    assert (found.kind, found.predictions) == ("sigmoid", rows - 1)
    assert found.scale == pytest.approx(factor * (rows - 1), rel=1e-4)
    assert found.nats == pytest.approx(expected, rel=1e-4)
    constant = np.stack([(m * t).sum(0), (m * (1 - t)).sum(0)]) / (rows - 1)
    np.testing.assert_allclose(found.constant, constant, atol=1e-12)
    target = targets("sigmoid", *seen(loss, outputs))
    assert torch.equal(target.isnan(), mask == 0)
    assert torch.equal(target[mask > 0], y[mask > 0])


def test_an_output_that_is_so_sure_that_it_has_no_gradient_is_right():
    outputs, y = drawn(0, 20, 3).float(), (drawn(1, 20, 3) > 0).float()
    outputs[:5, 0], y[:5, 0] = 40.0, 1.0
    outputs[5:9, 1], y[5:9, 1] = -200.0, 0.0
    found = told(lambda out: F.binary_cross_entropy_with_logits(out, y), outputs)
    assert found.kind == "sigmoid"
    assert found.nats == pytest.approx(3 * F.binary_cross_entropy_with_logits(outputs, y).item(), rel=1e-3)
    np.testing.assert_allclose(found.constant[0], y.mean(0), atol=1e-6)


def slope(loss, outputs, direction):
    """The derivative of a loss where the outputs move in a direction, by finite differences."""
    step = 1e-6
    return (loss(outputs + step * direction) - loss(outputs - step * direction)).item() / (2 * step)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("factor", [0.125, 1.0, 700.0])
def test_a_slope_over_the_scale_is_that_of_the_nats(kind, factor):
    outputs, direction = drawn(0, 20, 3), drawn(3, 20, 3)
    y = classes_drawn(0, 3, 20) if kind == "softmax" else (drawn(2, 20, 3) > 0).double()
    loss = F.cross_entropy if kind == "softmax" else F.binary_cross_entropy_with_logits
    whole = lambda out: factor * loss(out, y, reduction="sum")  # noqa: E731
    found = told(whole, outputs)
    target = targets(kind, *seen(whole, outputs))
    mine = slope(lambda out: torch.tensor(nats(kind, out, target), dtype=torch.float64), outputs, direction)
    assert slope(whole, outputs, direction) / found.scale == pytest.approx(mine, rel=1e-4)


@settings(max_examples=60)
@given(
    seed=SEEDS,
    rows=st.integers(24, 40),  # of a few rows, the signs that l1_loss has for a gradient may all sum to zero
    columns=st.integers(1, 5),
    factor=FACTORS,
    loss=st.sampled_from([F.mse_loss, F.smooth_l1_loss, F.l1_loss]),
)
def test_a_regression_is_another_loss_at_any_scale(seed, rows, columns, factor, loss):
    outputs, y = drawn(seed, rows, columns, spread=1.0), drawn(seed + 1, rows, columns, spread=1.0)
    found = told(lambda out: factor * loss(out, y), outputs)
    assert (found.kind, found.predictions, found.nats) == ("other", 1.0, 0.0)
    gradient = seen(lambda out: factor * loss(out, y), outputs)[1]
    assert found.scale == pytest.approx(np.linalg.norm(gradient.numpy()), rel=1e-4)
    np.testing.assert_allclose(found.constant, outputs.mean(0), rtol=1e-4, atol=1e-5)
    assert found.spread == pytest.approx(np.var(outputs.numpy(), axis=0).mean(), rel=1e-4)


@pytest.mark.parametrize("confidence", [0.01, 1.0, 3.0, 10.0])
def test_log_probabilities_are_told_alike_however_sure_they_are(confidence):
    """`log_softmax` in the model, and `nll_loss` after it, are a cross-entropy of a softmax, too."""
    y = classes_drawn(0, 5, 64)
    outputs = (drawn(0, 64, 5, spread=0.3) + confidence * torch.eye(5)[y].double()).log_softmax(1)
    found = told(lambda out: F.nll_loss(out, y), outputs)
    assert found.kind in ("softmax", "other")  # either, but it must not change while the model learns
    if found.kind == "softmax":
        assert found.nats == pytest.approx(F.nll_loss(outputs, y).item(), rel=1e-4)


def test_a_network_that_is_sure_of_all_its_predictions_is_told_still():
    y = classes_drawn(0, 5, 64)
    outputs = drawn(0, 64, 5, spread=0.1) + 12.0 * torch.eye(5)[y].double()
    assert F.cross_entropy(outputs, y) < 1e-4
    assert told(lambda out: F.cross_entropy(out, y), outputs).kind == "softmax"


@pytest.mark.parametrize("shape", [(4, 3), (4, 1), (1, 2)])
def test_without_a_gradient_nothing_is_told(shape):
    assert recognise(drawn(0, *shape), torch.zeros(shape, dtype=torch.float64)) is None


@settings(max_examples=60)
@given(seed=SEEDS, classes=st.integers(2, 6), rows=st.integers(5, 60))
def test_won_is_what_the_loss_is_below_that_of_the_best_constant(seed, classes, rows):
    """The best constant output is found by descent."""
    outputs, y = drawn(seed, rows, classes), classes_drawn(seed, classes, rows)
    outputs += 4 * torch.eye(classes, dtype=torch.float64)[y]
    found = told(lambda out: F.cross_entropy(out, y), outputs)
    counts = np.bincount(y.numpy(), minlength=classes)
    seen_classes = np.log(counts[counts > 0] / rows)
    best = -(counts[counts > 0] * seen_classes).sum() / rows
    expected = best - F.cross_entropy(outputs, y).item()
    assert won(found.kind, found.nats, found.constant, 0.0) == pytest.approx(max(0, expected), abs=1e-4)


def test_no_constant_output_is_better_than_the_one_that_won_counts_from():
    for kind, loss in (("softmax", F.cross_entropy), ("sigmoid", F.binary_cross_entropy_with_logits)):
        y = (drawn(1, 50, 3) > 0.8).double()
        y = y if kind == "sigmoid" else y.sum(1).long().clamp(max=2)
        constant = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        for _ in range(400):
            (gradient,) = torch.autograd.grad(loss(constant.expand(50, 3), y), constant)
            constant.data -= 5 * gradient
        best = loss(constant.expand(50, 3), y).item() * (3 if kind == "sigmoid" else 1)
        found = told(lambda out, loss=loss, y=y: loss(out, y), drawn(2, 50, 3))
        assert won(kind, 0.0, found.constant, 0.0) == pytest.approx(best, rel=1e-4)


def test_of_another_loss_half_the_variance_of_the_outputs_was_won():
    assert won("other", 3.0, np.array([7.0]), 0.5) == 0.25


def test_nothing_is_won_where_a_constant_is_better():
    assert won("softmax", 2.0, np.array([0.5, 0.5]), 0.0) == 0
    assert won("sigmoid", math.log(2) - 0.1, np.array([[0.5], [0.5]]), 0.0) == pytest.approx(0.1)
    assert won("softmax", 0.0, np.array([1.0, 0.0]), 0.0) == pytest.approx(0, abs=1e-9)


def test_what_labels_that_are_masked_could_have_won_does_not_count():
    y, mask = (drawn(1, 50, 3) > 0.8).double(), (drawn(3, 50, 3) > -0.5).double()
    constant = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    loss = lambda out: F.binary_cross_entropy_with_logits(out, y, weight=mask, reduction="sum") / 50  # noqa: E731
    for _ in range(400):
        (gradient,) = torch.autograd.grad(loss(constant.expand(50, 3)), constant)
        constant.data -= 5 * gradient
    found = told(loss, drawn(2, 50, 3))
    assert won("sigmoid", 0.0, found.constant, 0.0) == pytest.approx(
        loss(constant.expand(50, 3)).item() * 50 / found.predictions, rel=1e-4
    )
