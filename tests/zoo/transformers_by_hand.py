"""Whole transformers, and torch.nn's layers of them. Shapes: B batch, T time, S time of the source."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.attention import FusedChunk, RotaryComputed, SelfAttention
from zoo.feedforward import SwiGLU


class Block(nn.Module):
    """Attention and a feed-forward part, each after a LayerNorm."""

    def __init__(self, width, heads, head_dim, hidden, causal):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = FusedChunk(heads, head_dim, width, width, causal)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Gpt(nn.Module):
    def __init__(self, heads=(3, 5), head_dim=(4, 4), hidden=(10, 14), width=6, vocabulary=11, longest=9):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(longest, width)
        self.blocks = nn.ModuleList(
            Block(width, *sizes, causal=True) for sizes in zip(heads, head_dim, hidden, strict=True)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:  # [B, T]
        x = self.tokens(tokens) + self.places(torch.arange(tokens.size(1), device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class LlamaBlock(nn.Module):
    def __init__(self, width, kv_heads, queries, head_dim, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.attention = RotaryComputed(kv_heads, queries, head_dim, width, width)
        self.mlp = SwiGLU(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class LlamaLike(nn.Module):
    def __init__(self, kv_heads=(3, 2), queries=(2, 4), head_dim=(4, 4), hidden=(10, 14), width=6):
        super().__init__()
        self.tokens = nn.Embedding(11, width)
        self.blocks = nn.Sequential(
            *(LlamaBlock(width, *sizes) for sizes in zip(kv_heads, queries, head_dim, hidden, strict=True))
        )
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, 11, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:  # [B, T]
        return self.head(self.norm(self.blocks(self.tokens(tokens))))


class VisionTransformer(nn.Module):
    def __init__(self, heads=3, head_dim=4, hidden=10, width=6):
        super().__init__()
        self.patches = nn.Conv2d(3, width, kernel_size=4, stride=4)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 5, width))
        self.block = Block(width, heads, head_dim, hidden, causal=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 7)

    def forward(self, x: Tensor) -> Tensor:  # [B, 3, 8, 8]
        x = self.patches(x).flatten(2).transpose(1, 2)  # [B, 4, width]
        x = torch.cat([self.class_token.expand(x.size(0), -1, -1), x], dim=1) + self.places
        return self.head(self.norm(self.block(x))[:, 0])


class UnnormedTransformer(nn.Module):
    """No normalisation, so the stream itself can be learned."""

    def __init__(self, width=6, heads=3, head_dim=4, hidden=10):
        super().__init__()
        self.tokens = nn.Embedding(11, width)
        self.places = nn.Parameter(torch.randn(9, width))
        self.attention = SelfAttention(width, heads, head_dim, width, causal=True)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.head = nn.Linear(width, 11)

    def forward(self, tokens: Tensor) -> Tensor:  # [B, T]
        x = self.tokens(tokens) + self.places[: tokens.size(1)]
        x = x + self.gain * self.attention(x)
        return self.head(x + self.gain * self.down(F.relu(self.up(x)).square()))


class MultiheadClassifier(nn.Module):
    """torch.nn's own attention, on features that a layer makes."""

    def __init__(self, heads=3, head_dim=4):
        super().__init__()
        width = heads * head_dim
        self.embed = nn.Linear(5, width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.head = nn.Linear(width, 7)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, 5]
        x = self.embed(x)
        return self.head(self.attention(x, x, x)[0].mean(dim=1))


class MultiheadOnOtherWidths(nn.Module):
    """Keys and values come with widths of their own; the weights are an output."""

    def __init__(self, key=10, value=14):
        super().__init__()
        self.keys, self.values = nn.Linear(5, key), nn.Linear(5, value)
        self.attention = nn.MultiheadAttention(12, 3, kdim=key, vdim=value)

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:  # [T, B, 12], [S, B, 5]
        return self.attention(x, torch.relu(self.keys(memory)), torch.relu(self.values(memory)))


class MultiheadByItself(nn.Module):
    """Keys and values have a width of their own, and a learned pair of them is added to each sequence."""

    def __init__(self, heads=3, head_dim=4, key=10):
        super().__init__()
        width = heads * head_dim
        self.embed, self.keys = nn.Linear(5, width), nn.Linear(5, key)
        self.attention = nn.MultiheadAttention(width, heads, kdim=key, vdim=key, add_bias_kv=True)
        self.head = nn.Linear(width, 7)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:  # [T, B, 5], [S, B, 5]
        memory = torch.relu(self.keys(memory))
        return self.head(self.attention(self.embed(x), memory, memory, need_weights=False)[0])


class EncoderClassifier(nn.Module):
    def __init__(self, hidden=(10, 14), heads=2, head_dim=4):
        super().__init__()
        width = heads * head_dim
        self.embed = nn.Embedding(11, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, n, batch_first=True, norm_first=first)
            for n, first in zip(hidden, (False, True), strict=True)
        )
        self.head = nn.Linear(width, 3)

    def forward(self, tokens: Tensor) -> Tensor:  # [B, T]
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, 0])


class Decoder(nn.Module):
    def __init__(self, hidden=10):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layer = nn.TransformerDecoderLayer(8, 2, hidden, activation="gelu", batch_first=True)
        self.head = nn.Linear(8, 11)

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:  # [B, T], [B, S, 8]
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.size(1))
        return self.head(self.layer(self.embed(tokens), memory, tgt_mask=mask, tgt_is_causal=True))


class Translator(nn.Module):
    """The whole of torch.nn's transformer."""

    def __init__(self, heads=2, head_dim=4, hidden=(10, 10, 10)):
        super().__init__()
        width = heads * head_dim
        self.source, self.target = nn.Embedding(11, width), nn.Embedding(13, width)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # with an odd number of heads there are no nested tensors
            self.transformer = nn.Transformer(width, heads, 1, 2, 10, batch_first=True)
        layers = (*self.transformer.encoder.layers, *self.transformer.decoder.layers)
        for layer, size in zip(layers, hidden, strict=True):  # `dim_feedforward` is one for all of them
            layer.linear1, layer.linear2 = nn.Linear(width, size), nn.Linear(size, width)
        self.head = nn.Linear(width, 13)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:  # [B, S], [B, T]
        return self.head(self.transformer(self.source(source), self.target(target)))
