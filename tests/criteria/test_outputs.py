"""The outputs of a training step and their gradient: what is recorded, and running the model again."""

import copy
import gc
import io
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffstruct.criteria import outputs as module
from diffstruct.criteria.outputs import Outputs

X = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def watched(model=None):
    model = model or mlp()
    outputs = Outputs(model, model)
    outputs.recording = True
    return model, outputs


def train(model, outputs, x=X, y=Y):
    outputs.begin()
    F.cross_entropy(model(x), y).backward()


def hooks(model):
    return len(model._forward_hooks)


def test_outputs_and_their_gradient_are_recorded():
    model, outputs = watched()
    y = model(X)
    y.retain_grad()
    F.cross_entropy(y, Y).backward()
    (call,) = outputs.calls
    assert torch.equal(*call.args, X)
    assert torch.equal(call.outputs.float(), y.detach())
    assert torch.equal(call.gradient.float(), y.grad)
    assert (call.share, call.step, call.finite) == (1.0, 1, True)
    assert outputs.loss().kind == "softmax"
    assert outputs.loss().scale == pytest.approx(1, rel=1e-5)


def test_nothing_is_recorded_unless_wanted():
    model, outputs = watched()
    outputs.recording = False
    train(model, outputs)
    assert not outputs.calls
    late = model(X)
    outputs.recording = True
    F.cross_entropy(late, Y).backward()  # its forward was not seen
    assert not outputs.calls
    late = model(X)
    outputs.recording = False
    F.cross_entropy(late, Y).backward()  # nor is its backward
    assert not outputs.calls
    assert outputs.loss() is None


def test_nothing_is_recorded_without_a_gradient():
    model, outputs = watched()
    with torch.no_grad():
        model(X)
    model(X)  # and no backward
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model(X)
    assert not outputs.calls


class Several(nn.Module):
    """Two outputs, of which a loss may take either or both."""

    def __init__(self):
        super().__init__()
        self.small, self.large = nn.Linear(5, 2), nn.Linear(5, 7)

    def forward(self, x, swap=False):
        named = {"small": self.small(x), "large": [self.large(x)], "count": 3}
        return dict(reversed(named.items())) if swap else named


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(("taken", "classes"), [("both", 7), ("small", 2), ("large", 7)])
def test_of_several_outputs_the_largest_that_has_a_gradient_is_recorded(swap, taken, classes):
    model, outputs = watched(Several())
    found = model(X, swap=swap)
    small, large = found["small"].square().mean(), found["large"][0].square().mean()
    {"both": small + large, "small": small, "large": large}[taken].backward()
    (call,) = outputs.calls
    assert call.outputs.shape == (12, classes)
    assert torch.equal(outputs.again(call), call.outputs)
    assert call.kwargs == {"swap": swap}


class Both(torch.autograd.Function):
    """Twice and three times its input; what the loss does not look at has no gradient, not one of zeros."""

    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        return 2 * x, 3 * x

    @staticmethod
    def backward(ctx, *grads):
        return sum(factor * grad for factor, grad in zip((2, 3), grads, strict=True) if grad is not None)


def test_an_output_of_a_function_that_the_loss_does_not_look_at_is_no_obstacle():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x):
            return Both.apply(self.layer(x))

    model = Model()
    _, outputs = watched(model)
    torch.nn.functional.cross_entropy(model(X)[1], Y).backward()
    assert torch.equal(outputs.calls[-1].outputs, model(X)[1])


def test_several_calls_in_one_step_add_up():
    model, outputs = watched()
    train(model, outputs)
    whole = outputs.loss()
    outputs.begin()
    for part in range(3):
        rows = slice(4 * part, 4 * part + 4)
        (F.cross_entropy(model(X[rows]), Y[rows]) / 3).backward()
    assert [len(call.outputs) for call in outputs.calls] == [4, 4, 4]
    loss = outputs.loss()
    assert loss.predictions == whole.predictions == 12
    assert loss.scale == pytest.approx(whole.scale, rel=1e-5)
    assert loss.nats == pytest.approx(whole.nats, rel=1e-5)
    np.testing.assert_allclose(loss.constant, whole.constant, atol=1e-5, rtol=0)


def test_two_calls_for_one_loss_are_two_calls():
    model, outputs = watched()
    (F.cross_entropy(model(X[:4]), Y[:4]) + F.cross_entropy(model(X[4:]), Y[4:])).backward()
    assert sorted(len(call.outputs) for call in outputs.calls) == [4, 8]


def test_calls_stay_until_the_first_of_the_next_step():
    model, outputs = watched()
    train(model, outputs)
    (old,) = outputs.calls
    outputs.begin()
    assert outputs.calls == [old]
    y = model(X[:5])
    assert outputs.calls == [old]
    F.cross_entropy(y, Y[:5]).backward()
    (new,) = outputs.calls
    assert len(new.outputs) == 5
    outputs.clear()
    assert not outputs.calls


@pytest.mark.parametrize("shape", [(12,), (3, 4)])
def test_outputs_without_classes_are_of_one_class(shape):
    model, outputs = watched(nn.Sequential(nn.Linear(5, 1), nn.Flatten(0)))
    y = model(X)
    labels = (X[:, 0] > 0).float()
    F.binary_cross_entropy_with_logits(y.view(shape), labels.view(shape)).backward()
    (call,) = outputs.calls
    assert call.outputs.shape == call.gradient.shape == (12, 1)
    assert (outputs.loss().kind, outputs.loss().predictions) == ("sigmoid", 12)
    assert torch.equal(outputs.again(call), call.outputs)


def test_a_loss_that_the_model_returns_is_no_output_to_look_at():
    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp()

        def forward(self, x, y):
            logits = self.inner(x)
            return {"loss": F.cross_entropy(logits, y), "logits": logits}

    model, outputs = watched(WithLoss())
    model(X, Y)["loss"].backward()
    (call,) = outputs.calls
    assert call.outputs.shape == (12, 3)
    assert outputs.loss().kind == "softmax"
    assert torch.equal(outputs.again(call), call.outputs)


def test_inputs_are_kept_without_the_graph_that_made_them():
    model, outputs = watched()
    x = X.clone().requires_grad_()
    F.cross_entropy(model(2 * x), Y).backward()
    (call,) = outputs.calls
    assert not call.args[0].requires_grad
    assert not call.outputs.requires_grad
    assert torch.equal(outputs.again(call), call.outputs)


def test_of_many_predictions_some_are_looked_at_and_all_are_counted(monkeypatch):
    model, outputs = watched()
    train(model, outputs)
    whole = outputs.loss()
    monkeypatch.setattr(module, "MOST_ENTRIES", 10)  # of 36
    train(model, outputs)
    (call,) = outputs.calls
    assert call.step == 4
    assert torch.equal(call.outputs.float(), model(X).detach()[::4])
    assert torch.equal(outputs.again(call), call.outputs)
    assert outputs.loss().predictions == whole.predictions
    assert outputs.loss().scale == pytest.approx(whole.scale, rel=1e-5)


def test_automatic_mixed_precision_is_entered_again():
    seen = []

    class Records(nn.Module):
        def forward(self, x):
            seen.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), x.dtype))
            return x

    model, outputs = watched(nn.Sequential(mlp(), Records()))
    with torch.autocast("cpu", torch.bfloat16):
        train(model, outputs)
    (call,) = outputs.calls
    found = outputs.again(call)
    assert seen == [(True, torch.bfloat16, torch.bfloat16)] * 2
    assert torch.equal(found, call.outputs)
    train(model, outputs)
    with torch.autocast("cpu", torch.bfloat16):  # and left where it was not on
        outputs.again(outputs.calls[0])
    assert seen[2:] == [(False, torch.bfloat16, torch.float32)] * 2


def noisy():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize("training", [True, False])
def test_running_the_model_again_leaves_it_alone(training):
    model, outputs = watched(noisy())
    model[2].eval()
    train(model, outputs)
    (call,) = outputs.calls
    state, chance = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    modes = [each.training for each in model.modules()]
    found = [outputs.again(call, training=training) for _ in range(2)]
    assert torch.equal(*found)
    assert not found[0].requires_grad
    assert torch.equal(torch.get_rng_state(), chance)
    assert [each.training for each in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert outputs.calls == [call]  # and is not recorded
    assert torch.equal(found[0], call.outputs) == training  # the statistics of the batch, or running ones


def test_a_model_that_draws_draws_the_same_each_time():
    model, outputs = watched(noisy())
    train(model, outputs)
    torch.rand(7)
    first = outputs.again(outputs.calls[0])
    torch.rand(3)
    assert torch.equal(outputs.again(outputs.calls[0]), first)


def test_the_weights_are_those_of_now():
    model, outputs = watched()
    train(model, outputs)
    with torch.no_grad():
        model[2].weight.zero_()
    found = outputs.again(outputs.calls[0])
    assert torch.equal(found.float(), model[2].bias.detach().expand(12, 3))


def test_a_gradient_that_is_not_finite_tells_nothing():
    model, outputs = watched()
    (model(X).sum() * torch.nan).backward()
    assert not outputs.calls[0].finite
    assert outputs.loss() is None
    outputs.begin()
    (0 * model(X).sum()).backward()
    assert outputs.loss() is None


def test_detaching_takes_the_hook_away():
    model, outputs = watched()
    assert hooks(model) == 1
    train(model, outputs)
    outputs.detach()
    assert hooks(model) == 0
    assert not outputs.calls
    train(model, outputs)
    assert not outputs.calls
    outputs.detach()  # again does no harm


def test_a_copy_with_its_model_watches_the_copy():
    model, outputs = watched()
    twin, other = copy.deepcopy((model, outputs))
    train(twin, other)
    assert len(other.calls) == 1
    assert not outputs.calls
    train(model, outputs, X[:5], Y[:5])
    assert [len(call.outputs) for call in (*outputs.calls, *other.calls)] == [5, 12]
    other.detach()
    train(twin, other)
    assert not other.calls
    train(model, outputs)
    assert len(outputs.calls) == 1


def test_a_copy_of_the_model_alone_is_not_watched():
    """Such as a weight average, or a teacher that is trained besides."""
    model, outputs = watched()
    twin = copy.deepcopy(model)
    F.cross_entropy(twin(X), Y).backward()
    assert not outputs.calls


def test_a_watched_model_can_be_saved():
    model, _ = watched()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded(X), model(X))


def test_the_model_does_not_keep_what_watches_it_alive():
    model, outputs = watched()
    train(model, outputs)
    mine = weakref.ref(outputs)
    del outputs
    gc.collect()
    assert mine() is None
    F.cross_entropy(model(X), Y).backward()
