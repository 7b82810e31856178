"""Heads whole: how many, how wide, and the stream that they are made of; exact in float64."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from zoo import attention as att
from zoo.checks import outputs_of, silent_units_come_and_go

import diffstruct as ds
from diffstruct.surgery import Change, operate

EXACT = 1e-12


def grown(width, by=1):
    return Change(width, tuple(range(width.size)), by)


def without_last(width):
    return Change(width, tuple(range(width.size - 1)), 0)


class Attending(nn.Module):
    """`nn.MultiheadAttention` of any kind, on features that layers make."""

    def __init__(self, heads, width, other=None, **options):
        super().__init__()
        size = heads * width
        self.asks, self.tells = nn.Linear(5, size), nn.Linear(5, other or size)
        self.attention = nn.MultiheadAttention(
            size, heads, kdim=other, vdim=other, batch_first=True, **options
        )
        self.out = nn.Linear(size, 3)

    def forward(self, x, memory):
        told = torch.tanh(self.tells(memory))
        return self.out(self.attention(torch.tanh(self.asks(x)), told, told)[0])


@settings(max_examples=40)
@given(
    heads=st.integers(2, 4),
    width=st.integers(2, 5),
    other=st.sampled_from([None, 7]),
    bias=st.booleans(),
    add_bias_kv=st.booleans(),
    add_zero_attn=st.booleans(),
    seed=st.integers(0, 99),
)
def test_heads_of_multihead_attention_come_and_go(
    heads, width, other, bias, add_bias_kv, add_zero_attn, seed
):
    torch.manual_seed(seed)
    options = {"bias": bias, "add_bias_kv": add_bias_kv, "add_zero_attn": add_zero_attn}
    model = Attending(heads, width, other, **options).double().eval()
    inputs = torch.randn(2, 4, 5).double(), torch.randn(2, 6, 5).double()
    found = ds.find_widths(model, inputs)
    first = "asks" if other else "tells"  # whose weights are used first
    sizes = {name: each.size for name, each in found.widths.items()}
    assert sizes == {f"{first}.heads": heads, f"{first}.head_width": width} | (
        {"tells": other} if other else {}
    )
    silent_units_come_and_go(model, inputs, found.widths.values(), EXACT)
    operate([grown(found.widths[f"{first}.heads"]), grown(found.widths[f"{first}.head_width"], 2)])
    module = model.attention
    assert (module.num_heads, module.head_dim) == (heads + 1, width + 2)
    assert module.embed_dim == (heads + 1) * (width + 2) == module.out_proj.in_features
    assert module.kdim == module.vdim == (other or module.embed_dim)
    assert outputs_of(model, inputs)[0].isfinite().all()


class Scaled(att.SelfAttention):
    """The scale is a number that the constructor has computed from the width of a head."""

    def __init__(self, used=True):
        super().__init__()
        self.scale, self.dropout, self.used = self.head_dim**-0.5, self.head_dim**-0.5, used

    def forward(self, x):
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        if self.used:
            y = F.dropout(((q @ k.mT) * self.scale).softmax(-1), self.dropout, self.training) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("used", [True, False])
def test_a_number_that_holds_the_scale_follows_if_it_is_used(used):
    torch.manual_seed(0)
    model, inputs = Scaled(used), (torch.randn(2, 7, 5),)
    width = ds.find_widths(model, inputs).widths["q.head_width"]
    expected = outputs_of(model, inputs)[0]
    keys = model.k.weight.detach().clone()
    operate([grown(width, 5)])  # to nine, with new entries of zero
    torch.testing.assert_close(outputs_of(model, inputs)[0], expected)
    assert model.scale == pytest.approx(1 / 3 if used else 1 / 2)
    assert model.dropout == 1 / 2
    kept = model.k.weight.detach().unflatten(0, (3, 9))[:, :4].flatten(0, 1)
    torch.testing.assert_close(kept, keys * 3 / 2)


class Ranked(nn.Module):
    """Attention of which one layer computes queries, keys and values, in any order."""

    def __init__(self, order):
        super().__init__()
        self.order, self.heads, self.head_dim = order, 3, 4
        self.qkv, self.out = nn.Linear(5, 36), nn.Linear(12, 7)

    def forward(self, x):
        parts = self.qkv(x).unflatten(-1, (3, self.heads, self.head_dim)).unbind(2)
        q, k, v = (parts[index].transpose(1, 2) for index in self.order)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_what_is_silent_in_a_fused_layer_are_its_queries_or_keys(order):
    torch.manual_seed(0)
    model, inputs = Ranked(order), (torch.randn(2, 7, 5),)
    found = ds.find_widths(model, inputs)
    assert {name: width.size for name, width in found.widths.items()} == {
        "qkv.heads": 3,
        "qkv.head_width": 4,
    }
    silent_units_come_and_go(model, inputs, found.widths.values(), 1e-5)
    readers = [
        slot for slot in found.widths["qkv.head_width"].having(ds.Role.OUTGOING) if slot.module is model.qkv
    ]
    parts = [slot.by_entry(torch.zeros(4), found.widths["qkv.head_width"].axis).flatten() for slot in readers]
    for part in parts:  # of weight and bias: one of the three is read
        silent = (part == 0).view(3, 12).all(1)
        assert silent.sum() == 1
        assert silent.nonzero().item() in order[:2]


class Sliced(nn.Module):
    """As image models have it: how wide a head is follows from the stream, which is as wide as all heads."""

    def __init__(self, width=12, heads=3):
        super().__init__()
        self.num_heads = heads
        self.embed, self.norm = nn.Linear(5, width), nn.LayerNorm(width)
        self.qkv, self.proj, self.out = (
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
            nn.Linear(width, 3),
        )

    def forward(self, x):
        x = self.embed(x)
        batch, time, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, time, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, time, width)
        return self.out(x + self.proj(y))


def test_a_stream_is_made_of_heads_where_the_code_divides_it_by_their_number():
    torch.manual_seed(0)
    model, inputs = Sliced().double(), (torch.randn(2, 7, 5).double(),)
    found = ds.find_widths(model, inputs)
    sizes = {name: width.size for name, width in found.widths.items()}
    assert sizes == {"embed.heads": 3, "embed.head_width": 4}
    silent_units_come_and_go(model, inputs, found.widths.values(), EXACT)


class Classifier(nn.Module):
    def __init__(self, heads):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, heads, 20, batch_first=True)
        self.embed, self.encoder = nn.Embedding(11, 16), nn.TransformerEncoder(layer, 2)
        self.out = nn.Linear(16, 3)

    def forward(self, tokens, padding):
        return self.out(self.encoder(self.embed(tokens), src_key_padding_mask=padding))


def test_an_encoder_with_padding_runs_on_its_fast_path_with_any_number_of_heads():
    torch.manual_seed(0)
    model = Classifier(4).eval()
    inputs = torch.randint(11, (2, 5)), torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
    found = ds.find_widths(model, inputs)
    assert model.encoder.use_nested_tensor
    for change in (without_last, without_last, grown):
        operate([change(found.widths["embed.heads"]), grown(found.widths["embed.head_width"])])
        slow = model(*inputs)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nested tensors are a prototype
            fast = model(*inputs)
        torch.testing.assert_close(fast[:, :3], slow.detach()[:, :3])
    assert not model.encoder.use_nested_tensor


def test_what_the_weights_of_all_heads_have_in_common_is_no_obstacle_if_nobody_looks():
    class Weighing(nn.Module):
        def __init__(self, look):
            super().__init__()
            self.embed, self.attention = nn.Linear(5, 12), nn.MultiheadAttention(12, 3, batch_first=True)
            self.out, self.look = nn.Linear(12, 3), look

        def forward(self, x):
            x = self.embed(x)
            y, weights = self.attention(x, x, x)  # the mean of all heads' weights
            return self.out(weights @ y if self.look else y)

    torch.manual_seed(0)
    found = ds.find_widths(Weighing(look=False), (torch.randn(2, 7, 5),))
    assert {*found.widths} == {"embed.heads", "embed.head_width"}
    found = ds.find_widths(Weighing(look=True), (torch.randn(2, 7, 5),))
    assert {*found.widths} == {"embed.head_width"}
    assert "the mean is taken over it in attention (MultiheadAttention)" in found.explain()


def test_a_stream_that_is_the_models_own_input_holds_its_heads():
    torch.manual_seed(0)
    model = nn.Transformer(8, 2, 1, 1, 6, batch_first=True)
    found = ds.find_widths(model, (torch.randn(2, 5, 8), torch.randn(2, 4, 8)))
    assert {*found.widths} == {"encoder.layers.0.linear1", "decoder.layers.0.linear1"}
    (reason,) = {each.reason for each in found.refused}
    assert reason.startswith("is a dimension of the input; it can be learned with a layer in front")


def test_a_large_batch_does_not_make_rounding_look_like_a_wrong_scale():
    """Of thousands of positions, some nearly hesitate between two others: rounding must not decide there."""

    class Attentions(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.out = nn.Embedding(64, 32), nn.Linear(32, 64)
            self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(2))
            self.layers = nn.ModuleList(att.SelfAttention(32, 4, 8, 32) for _ in range(2))

        def forward(self, text):
            x = self.token(text)
            for norm, layer in zip(self.norms, self.layers, strict=True):
                x = x + layer(norm(x))
            return self.out(x)

    torch.manual_seed(0)
    found = ds.find_widths(Attentions(), (torch.randint(64, (32, 64)),))
    assert {"layers.0.q.head_width", "layers.1.q.head_width"} < {*found.widths}
