"""Attention by hand. Shapes: B batch, T time, S time attended to, H heads, D features of a head."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Separate projections; the scale, which torch takes from the head width, holds that width fixed."""

    def __init__(self, inputs=5, heads=3, head_dim=4, outputs=7, causal=False):
        super().__init__()
        self.heads, self.head_dim, self.causal = heads, head_dim, causal
        self.q = nn.Linear(inputs, heads * head_dim)
        self.k = nn.Linear(inputs, heads * head_dim)
        self.v = nn.Linear(inputs, heads * head_dim)
        self.out = nn.Linear(heads * head_dim, outputs)

    def split(self, x: Tensor) -> Tensor:  # [B, T, H D] -> [B, H, T, D]
        return x.view(x.size(0), x.size(1), self.heads, self.head_dim).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(y.transpose(1, 2).reshape(x.size(0), x.size(1), self.heads * self.head_dim))


class WidthOverHeads(nn.Module):
    """The head width is computed once, from the width of the stream; heads can come and go all the same."""

    def __init__(self, width=12, heads=3):
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.embed = nn.Linear(5, width)
        self.norm = nn.LayerNorm(width)
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = self.norm(x)
        batch, time = y.shape[:2]
        q = self.q_proj(y).view(batch, time, self.num_heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(y).view(batch, time, self.num_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(y).view(batch, time, self.num_heads, self.head_dim).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # [B, T, width]
        return x + self.out_proj(y)


class WidthOfStream(nn.Module):
    """The head width is computed in `forward`, from the width of the stream: no head can come or go."""

    def __init__(self, hidden=10, width=12, heads=3):
        super().__init__()
        self.n_head, self.n_embd = heads, width
        self.embed = nn.Embedding(11, width)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.out = nn.Linear(width, 11, bias=False)

    def attend(self, x: Tensor) -> Tensor:
        batch, time, width = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        q = q.view(batch, time, self.n_head, width // self.n_head).transpose(1, 2)
        k = k.view(batch, time, self.n_head, width // self.n_head).transpose(1, 2)
        v = v.view(batch, time, self.n_head, width // self.n_head).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(batch, time, width))

    def forward(self, tokens: Tensor) -> Tensor:  # [B, T]
        x = self.embed(tokens)
        x = x + self.attend(self.ln_1(x))
        return self.out(x + self.mlp(self.ln_2(x)))


class FusedChunk(nn.Module):
    """One layer computes queries, keys and values, one after the other."""

    def __init__(self, heads=3, head_dim=4, inputs=5, outputs=7, causal=False):
        super().__init__()
        self.heads, self.head_dim, self.causal = heads, head_dim, causal
        self.qkv = nn.Linear(inputs, 3 * heads * head_dim)
        self.out = nn.Linear(heads * head_dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        q, k, v = (
            part.view(batch, time, self.heads, self.head_dim).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)  # [B, H, T, D]
        return self.out(y.transpose(1, 2).reshape(batch, time, -1))


class FusedView(nn.Module):
    """The same by one view, with a causal mask that is kept as a buffer."""

    def __init__(self, heads=3, head_dim=4, longest=9):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.qkv = nn.Linear(5, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, 7)
        self.register_buffer("mask", torch.ones(longest, longest).tril().bool())

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        qkv = self.qkv(x).view(batch, time, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # [B, H, T, D] each
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
        scores = scores.masked_fill(~self.mask[:time, :time], float("-inf"))
        y = scores.softmax(dim=-1) @ v
        return self.out(y.permute(0, 2, 1, 3).reshape(batch, time, self.heads * self.head_dim))


class FusedByHead(nn.Module):
    """Each head's queries, keys and values side by side."""

    def __init__(self, heads=3, head_dim=4):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.qkv = nn.Linear(5, heads * 3 * head_dim)
        self.out = nn.Linear(heads * head_dim, 7)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        q, k, v = (
            self.qkv(x).view(batch, time, self.heads, 3 * self.head_dim).transpose(1, 2).chunk(3, dim=-1)
        )
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(batch, time, self.heads * self.head_dim))


class StoredScale(nn.Module):
    """The scale is a number of its own: heads can be learned, and the features that each has."""

    def __init__(self, heads=3, head_dim=4, scale=0.3):
        super().__init__()
        self.heads, self.head_dim, self.scale = heads, head_dim, scale
        self.q = nn.Linear(5, heads * head_dim)
        self.k = nn.Linear(5, heads * head_dim)
        self.v = nn.Linear(5, heads * head_dim)
        self.out = nn.Linear(heads * head_dim, 7)

    def forward(self, x: Tensor) -> Tensor:
        shape = x.size(0), x.size(1), self.heads, self.head_dim
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        weights = torch.softmax(q @ k.transpose(-2, -1) * self.scale, dim=-1)  # [B, H, T, T]
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class KeysAndValues(nn.Module):
    """Keys and values of different widths; `scale` None: one over the root of the keys' width."""

    def __init__(self, heads=3, key=4, value=5, scale=None):
        super().__init__()
        self.heads, self.scale = heads, scale
        self.q, self.k = nn.Linear(6, heads * key), nn.Linear(6, heads * key, bias=False)
        self.v = nn.Linear(6, heads * value)
        self.out = nn.Linear(heads * value, 7)

    def forward(self, x: Tensor) -> Tensor:
        shape = x.size(0), x.size(1), self.heads, -1
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        scale = q.size(-1) ** -0.5 if self.scale is None else self.scale
        weights = torch.softmax(torch.einsum("bhtd,bhsd->bhts", q, k) * scale, dim=-1)
        return self.out(torch.einsum("bhts,bhsd->bthd", weights, v).flatten(2))


class LinearAttention(nn.Module):
    """Without softmax; the features of queries and keys are positive, so none of them is ever silent."""

    def __init__(self, heads=3, value=5, key=4):
        super().__init__()
        self.heads = heads
        self.q, self.k = nn.Linear(6, heads * key), nn.Linear(6, heads * key)
        self.v = nn.Linear(6, heads * value)
        self.out = nn.Linear(heads * value, 7)

    def forward(self, x: Tensor) -> Tensor:
        q = F.elu(self.q(x).unflatten(2, (self.heads, -1))) + 1  # [B, T, H, key]
        k = F.elu(self.k(x).unflatten(2, (self.heads, -1))) + 1
        v = self.v(x).unflatten(2, (self.heads, -1))
        memory = torch.einsum("bthk,bthv->bhkv", k, v)
        norm = torch.einsum("bthk,bhk->bth", q, k.sum(dim=1))
        y = torch.einsum("bthk,bhkv->bthv", q, memory) / norm.unsqueeze(-1)
        return self.out(y.flatten(2))


class GroupedQueries(nn.Module):
    """Several heads of queries share keys and values."""

    def __init__(self, kv_heads=3, queries=2, head_dim=4, inputs=5, outputs=7):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = kv_heads * queries, kv_heads, head_dim
        self.q = nn.Linear(inputs, self.heads * head_dim, bias=False)
        self.k = nn.Linear(inputs, kv_heads * head_dim, bias=False)
        self.v = nn.Linear(inputs, kv_heads * head_dim, bias=False)
        self.out = nn.Linear(self.heads * head_dim, outputs, bias=False)

    def rotate(self, x: Tensor) -> Tensor:  # [B, H, T, D]; a place for rotary embeddings
        return x

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        q = self.q(x).view(batch, time, self.heads, self.head_dim).transpose(1, 2)
        k = self.k(x).view(batch, time, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v(x).view(batch, time, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = self.rotate(q), self.rotate(k)
        k = k.repeat_interleave(self.heads // self.kv_heads, dim=1)  # [B, H, T, D]
        v = v.repeat_interleave(self.heads // self.kv_heads, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, time, self.heads * self.head_dim))


def angles(time: Tensor, head_dim: int) -> Tensor:
    """[T, head_dim / 2]."""
    return torch.outer(time, 100.0 ** (-torch.arange(0, head_dim, 2) / head_dim))


class RotaryCached(SelfAttention):
    """Cosines and sines of all positions are buffers, of which the first T are taken."""

    def __init__(self, inputs=5, heads=3, head_dim=4, outputs=7, longest=9):
        super().__init__(inputs, heads, head_dim, outputs, causal=True)
        turned = angles(torch.arange(longest).float(), head_dim).repeat(1, 2)
        self.register_buffer("cos", turned.cos())
        self.register_buffer("sin", turned.sin())

    def rotate(self, x: Tensor) -> Tensor:  # [B, H, T, D]
        time, half = x.size(-2), x.size(-1) // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
        return x * self.cos[:time] + turned * self.sin[:time]

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            self.rotate(self.split(self.q(x))),
            self.rotate(self.split(self.k(x))),
            self.split(self.v(x)),
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))


class RotaryComputed(GroupedQueries):
    """Cosines and sines are computed from frequencies; pairs of neighbours turn."""

    def __init__(self, kv_heads=3, queries=2, head_dim=4, inputs=5, outputs=7):
        super().__init__(kv_heads, queries, head_dim, inputs, outputs)
        self.register_buffer("inv_freq", 100.0 ** (-torch.arange(0, head_dim, 2) / head_dim))

    def rotate(self, x: Tensor) -> Tensor:  # [B, H, T, D]
        angle = torch.outer(torch.arange(x.size(-2), dtype=x.dtype), self.inv_freq)  # [T, D / 2]
        even, odd = x[..., 0::2], x[..., 1::2]
        cos, sin = angle.cos(), angle.sin()
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class Alibi(SelfAttention):
    """A buffer with a slope for each head."""

    def __init__(self, inputs=5, heads=3, head_dim=4, outputs=7):
        super().__init__(inputs, heads, head_dim, outputs)
        self.register_buffer("slopes", 2.0 ** -torch.arange(1.0, heads + 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        place = torch.arange(x.size(1))
        far = (place[:, None] - place[None, :]).abs()  # [T, T]
        bias = -self.slopes[:, None, None] * far  # [H, T, T]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(y.transpose(1, 2).flatten(2))


class RelativeBias(SelfAttention):
    """A table with a bias for each distance and head."""

    def __init__(self, inputs=5, heads=3, head_dim=4, outputs=7, farthest=8):
        super().__init__(inputs, heads, head_dim, outputs)
        self.farthest = farthest
        self.bias = nn.Embedding(2 * farthest + 1, heads)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        place = torch.arange(x.size(1))
        distance = (place[:, None] - place[None, :]).clamp(-self.farthest, self.farthest)
        bias = self.bias(distance + self.farthest).permute(2, 0, 1)  # [H, T, T]
        scores = q @ k.transpose(2, 3) / self.head_dim**0.5 + bias
        y = scores.softmax(dim=-1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


class NormedQueries(SelfAttention):
    """Queries and keys are normalised within each head."""

    def __init__(self, inputs=5, heads=3, head_dim=4, outputs=7):
        super().__init__(inputs, heads, head_dim, outputs)
        self.q_norm, self.k_norm = nn.RMSNorm(head_dim), nn.RMSNorm(head_dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.q_norm(self.split(self.q(x))), self.k_norm(self.split(self.k(x)))
        y = F.scaled_dot_product_attention(q, k, self.split(self.v(x)))
        return self.out(y.transpose(1, 2).flatten(2))


class TalkingHeads(SelfAttention):
    """Linear layers mix the heads' scores, and their weights."""

    def __init__(self, inputs=5, heads=3, head_dim=4, outputs=7, mixed=6):
        super().__init__(inputs, heads, head_dim, outputs)
        self.before, self.after = nn.Linear(heads, mixed, bias=False), nn.Linear(mixed, heads)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        scores = q @ k.transpose(2, 3) / math.sqrt(self.head_dim)
        weights = self.before(scores.permute(0, 2, 3, 1)).softmax(dim=2)  # [B, T, S, M]
        y = self.after(weights).permute(0, 3, 1, 2) @ v
        return self.out(y.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Reads a second sequence, after a layer of its own."""

    def __init__(self, heads=3, memory=6, head_dim=4):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.memory = nn.Linear(8, memory)
        self.q = nn.Linear(5, heads * head_dim)
        self.kv = nn.Linear(memory, 2 * heads * head_dim)
        self.out = nn.Linear(heads * head_dim, 7)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:  # [B, T, 5], [B, S, 8]
        kv = self.kv(torch.relu(self.memory(memory)))
        kv = kv.view(*memory.shape[:2], 2, self.heads, self.head_dim)
        k, v = kv.permute(2, 0, 3, 1, 4)  # [B, H, S, D] each
        q = self.q(x).view(*x.shape[:2], self.heads, self.head_dim).transpose(1, 2)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class AttentionPooling(nn.Module):
    """A parameter asks; its products with the features weigh the sum over time."""

    def __init__(self, width=6):
        super().__init__()
        self.features = nn.Linear(5, width)
        self.query = nn.Parameter(torch.randn(width))
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.features(x))  # [B, T, width]
        weights = (x @ self.query).softmax(dim=1)  # [B, T]
        return self.out((weights.unsqueeze(2) * x).sum(dim=1))


class GraphAttention(nn.Module):
    """Each node attends to those that point to it; scores are sums over products with parameters."""

    def __init__(self, heads=3, head_dim=4):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.project = nn.Linear(5, heads * head_dim, bias=False)
        self.source = nn.Parameter(torch.randn(heads, head_dim))
        self.target = nn.Parameter(torch.randn(heads, head_dim))
        self.out = nn.Linear(heads * head_dim, 7)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:  # [N, 5], [2, E]
        source, target = edges
        x = self.project(nodes).view(-1, self.heads, self.head_dim)  # [N, H, D]
        scores = (x * self.source).sum(-1)[source] + (x * self.target).sum(-1)[target]  # [E, H]
        weights = F.leaky_relu(scores, 0.2).exp()
        total = torch.zeros(len(x), self.heads).index_add(0, target, weights)
        sums = torch.zeros(len(x), self.heads, self.head_dim).index_add(
            0, target, weights.unsqueeze(-1) * x[source]
        )
        return self.out(F.elu((sums / (total.unsqueeze(-1) + 1e-3)).flatten(1)))
