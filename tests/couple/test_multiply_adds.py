"""The multiply-adds of a model at any sizes, against counting them after real surgery."""

import copy
import pickle
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from zoo import CASES

import diffstruct as ds
from diffstruct.couple import counting
from diffstruct.couple.unfused import unfused
from diffstruct.surgery import Change, operate

BEYOND_THE_COUNTER = {"bilinear", "spectral_norm", "attention_pooling"}
"""PyTorch's counter leaves products with vectors out, and those of three."""

BY_THE_DATA = {"data_dependent_loop"}


class ConvNet(nn.Module):
    """Two branches that are concatenated, a residual connection, and groups."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 6, 1)
        self.norm = nn.BatchNorm2d(10)
        self.down = nn.Conv2d(10, 5, 3, stride=2)
        self.inner = nn.Conv2d(5, 7, 3, padding=1)
        self.back = nn.ConvTranspose2d(7, 5, 3, padding=1)
        self.depth = nn.Conv2d(5, 5, 2, groups=5)
        self.out = nn.Linear(5 * 4, 3)

    def forward(self, x):  # [B, 2, 7, 7]
        hidden = self.down(torch.relu(self.norm(torch.cat([self.one(x), self.two(x)], 1))))
        hidden = hidden + self.back(torch.relu(self.inner(hidden)))
        return self.out(torch.relu(self.depth(hidden)).flatten(1))


class Recurrent(nn.Module):
    def __init__(self, kind, time_first=False):
        super().__init__()
        self.rnn = kind(3, 5, batch_first=not time_first)
        self.out = nn.Linear(5, 2)

    def forward(self, x):
        return self.out(self.rnn(x)[0])


class Attention(nn.Module):
    """PyTorch's own attention, fused on most devices."""

    def __init__(self, heads=3, width=4):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(6, heads * width) for _ in range(3))
        self.out, self.mlp = nn.Linear(heads * width, 6), nn.Sequential(nn.Linear(6, 9), nn.GELU())
        self.last = nn.Linear(9, 2)

    def forward(self, x):  # [B, T, 6]
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.last(self.mlp(x + self.out(mixed.transpose(1, 2).flatten(2))))


def mlp():
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))


MODELS = {
    "mlp": (mlp, (8, 3)),
    "convolutions": (ConvNet, (2, 2, 7, 7)),
    "rnn": (lambda: Recurrent(nn.RNN), (2, 4, 3)),
    "gru": (lambda: Recurrent(nn.GRU), (2, 4, 3)),
    "lstm": (lambda: Recurrent(nn.LSTM), (2, 4, 3)),
    "attention": (Attention, (2, 7, 6)),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), (2, 5, 8)),
}


def found(kind):
    torch.manual_seed(0)
    make, shape = MODELS[kind]
    model, x = make(), torch.randn(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ds.find_widths(model, (x,)), x


def counted(model, *args, **kwargs):
    """By PyTorch's own counter, which counts two operations for each, and one example of a batch as well."""
    modes = {module: module.training for module in model.modules()}
    with warnings.catch_warnings(), unfused(), FlopCounterMode(display=False) as counter:
        warnings.simplefilter("ignore")
        model.eval()(*args, **kwargs)
    for module, mode in modes.items():
        module.training = mode
    return counter.get_total_flops() / 2


def resized(found, sizes):
    """Carry sizes out; what undoes it."""
    changes = []
    for name, size in sizes.items():
        width = found.widths[name]
        changes.append(Change(width, tuple(range(min(size, width.size))), max(0, size - width.size)))
    return operate(changes)


def own(found):
    return {name: width.size for name, width in found.widths.items()}


@settings(max_examples=8, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("kind", [*MODELS])
def test_multiply_adds_at_other_sizes_are_what_is_counted_after_surgery(kind, data):
    widths, x = found(kind)
    assert widths.widths
    count = ds.MultiplyAdds(widths)
    assert count(own(widths)) == count({}) == counted(widths.model, x) / len(x)
    sizes = {name: data.draw(st.integers(1, size + 3), name) for name, size in own(widths).items()}
    expected = count(sizes)
    resized(widths, sizes)
    assert counted(widths.model, x) / len(x) == expected
    assert ds.MultiplyAdds(widths)(sizes) == expected  # taken where the sizes are these


@pytest.mark.slow
@pytest.mark.parametrize("each", CASES, ids=lambda each: each.name)
def test_multiply_adds_of_every_architecture_of_the_zoo(each):
    torch.manual_seed(0)
    args = each.inputs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        widths = ds.find_widths(each.build(), args)
    count = ds.MultiplyAdds(widths)
    for add in (0, 1, 2):
        sizes = {name: max(1, size // 2) + add for name, size in own(widths).items()}
        undo = resized(widths, sizes)
        expected = counted(widths.model, *args)
        undo()
        if each.name in BEYOND_THE_COUNTER:
            assert count(sizes) * count.examples > expected
        elif each.name not in BY_THE_DATA:
            assert count(sizes) * count.examples == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("kind", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_recurrent_layers_count_whatever_kernel_runs_them(kind, gates):
    widths, x = found(kind)
    assert ds.MultiplyAdds(widths)({}) == x.shape[1] * (gates * 5 * (3 + 5) + 5 * 2)


def test_attention_counts_whatever_kernel_runs_it():
    widths, x = found("attention")
    steps, (heads, width) = x.shape[1], (3, 4)
    linear = steps * (4 * 6 * heads * width + 6 * 9 + 9 * 2)
    assert ds.MultiplyAdds(widths)({}) == linear + 2 * steps**2 * heads * width


@pytest.mark.parametrize("kernel", ["_cudnn_rnn", "flash"])
def test_kernels_that_run_as_one_count_as_what_they_are_made_of(kernel):
    seen = counting.Counting()
    with seen, torch.no_grad():
        if kernel == "flash":
            q, k = torch.ones(2, 3, 7, 4), torch.ones(2, 3, 5, 4)
            F.scaled_dot_product_attention(q, k, k)
            expected = 2 * (2 * 3 * 7 * 5 * 4)
        else:
            weights = [torch.ones(s, device="meta") for s in ((20, 3), (20, 5), (20,), (20,))]
            x, state = torch.ones(4, 2, 3, device="meta"), torch.ones(1, 2, 5, device="meta")
            options = (2, 5, 0, 1, False, 0.0, False, False, [], None)
            torch.ops.aten._cudnn_rnn(x, weights, 4, None, state, state, *options)
            expected = 4 * 2 * 20 * (3 + 5)
    assert sum(map(torch.Size.numel, map(torch.Size, seen.products))) == expected


def test_the_batch_is_the_first_dimension_of_the_first_tensor():
    for batch in (1, 4):
        model = mlp()
        inputs = {"input": torch.ones(batch, 3)}
        assert ds.MultiplyAdds(ds.find_widths(model, inputs))({}) == 15 + 20 + 8
    widths = ds.find_widths(Recurrent(nn.RNN, time_first=True), (torch.ones(6, 2, 3),))
    assert ds.MultiplyAdds(widths)({}) == 2 * (5 * 8 + 10)  # a step of both sequences


def test_the_model_is_left_as_it_was():
    widths, x = found("convolutions")
    model = widths.model
    F.mse_loss(model(x), torch.zeros(2, 3)).backward()
    tensors = [*model.parameters(), *model.buffers()]
    before = [(tensor.data_ptr(), tensor.detach().clone()) for tensor in tensors]
    grads = [parameter.grad for parameter in model.parameters()]
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    ds.MultiplyAdds(widths)
    assert torch.equal(torch.rand(1), expected)
    assert model.training
    for tensor, (pointer, value) in zip(tensors, before, strict=True):
        assert tensor.data_ptr() == pointer
        assert torch.equal(tensor, value)
    assert all(p.grad is grad for p, grad in zip(model.parameters(), grads, strict=True))


def test_it_is_plain_data():
    widths, _ = found("attention")
    count = ds.MultiplyAdds(widths)
    sizes = dict.fromkeys(widths.widths, 2)
    for other in (copy.deepcopy(count), pickle.loads(pickle.dumps(count))):
        assert other(sizes) == count(sizes)
    assert len(pickle.dumps(count)) < 4000


def test_the_steps_of_a_recurrent_layer_are_kept_once():
    widths = ds.find_widths(Recurrent(nn.GRU), (torch.ones(2, 200, 3),))
    assert len(pickle.dumps(ds.MultiplyAdds(widths))) < 2000


def test_a_model_without_products_takes_none():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.scale = nn.Embedding(7, 4), nn.Parameter(torch.ones(4))

        def forward(self, x):
            return (self.table(x) * self.scale).sum(-1)

    count = ds.MultiplyAdds(ds.find_widths(Scaled(), (torch.arange(5),)))
    assert count({}) == 0


def test_widths_that_were_declared_are_refused():
    model = nn.Sequential(ds.nn.GRU(3, 4), nn.Linear(4, 2))
    model[0].feeds(model[1])
    with pytest.raises(ds.StructureError, match="found without example inputs"):
        ds.MultiplyAdds(ds.find_widths(model))


class Routed(nn.Module):
    """Mixes the examples of a batch where it has certain sizes."""

    def __init__(self, sizes):
        super().__init__()
        self.one, self.out = nn.Linear(3, 6), nn.Linear(6, 2)
        self.sizes = {*sizes}  # in a tuple, 6 would pass for the size, which surgery keeps in step

    def forward(self, x):
        hidden = torch.relu(self.one(x))
        if hidden.shape[-1] in self.sizes:
            hidden = hidden + 0 * (torch.ones(len(x), len(x)) @ hidden)
        return self.out(hidden)


@pytest.mark.parametrize(
    ("sizes", "why"),
    [((6, 5, 4, 3), "takes another way"), ((7, 6, 5), "do not follow the sizes"), ((7, 6, 5, 3), None)],
)
def test_what_does_not_follow_the_sizes_is_refused(sizes, why):
    torch.manual_seed(0)
    widths = ds.find_widths(Routed(sizes), (torch.randn(4, 3),))
    assert own(widths) == {"one": 6}
    if why is None:
        ds.MultiplyAdds(widths)
    else:
        with pytest.raises(ds.StructureError, match=f"{why}.*cost="):
            ds.MultiplyAdds(widths)
    assert own(widths) == {"one": 6}


def test_an_operator_that_multiplies_in_an_unknown_way_is_refused(monkeypatch):
    monkeypatch.delitem(counting.PRODUCTS, "addmm")
    widths, _ = found("mlp")
    with pytest.raises(ds.StructureError, match="addmm"):
        ds.MultiplyAdds(widths)
