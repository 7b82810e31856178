"""Networks of linear layers, embeddings and gates. Shapes: B batch, S set or sequence, N nodes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TwoBranchBilinear(nn.Module):
    def __init__(self, left=6, right=10, joint=14):
        super().__init__()
        self.left = nn.Linear(5, left)
        self.right = nn.Linear(4, right)
        self.joint = nn.Bilinear(left, right, joint)
        self.out = nn.Linear(joint, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # [B, 5], [B, 4] -> [B, 3]
        return self.out(torch.relu(self.joint(torch.tanh(self.left(x)), torch.tanh(self.right(y)))))


class SwiGLU(nn.Module):
    def __init__(self, width=6, hidden=10):
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Gated(nn.Module):
    """Values and gates are halves of one layer."""

    def __init__(self, hidden=6, second=10):
        super().__init__()
        self.first = nn.Linear(5, 2 * hidden)
        self.second = nn.Linear(hidden, 2 * second)
        self.out = nn.Linear(second, 3)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.first(x).chunk(2, dim=-1)
        x = value * torch.sigmoid(gate)  # [B, hidden]
        return self.out(F.glu(self.second(x), dim=-1))


class Highway(nn.Module):
    def __init__(self, width=6, depth=2):
        super().__init__()
        self.embed = nn.Linear(5, width)
        self.plain = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for plain, gate in zip(self.plain, self.gates, strict=True):
            open_ = torch.sigmoid(gate(x))
            x = open_ * torch.relu(plain(x)) + (1 - open_) * x
        return self.out(x)


class Maxout(nn.Module):
    def __init__(self, hidden=6, pieces=4):
        super().__init__()
        self.hidden, self.pieces = hidden, pieces
        self.first = nn.Linear(5, hidden * pieces)
        self.out = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        pieces = self.first(x).view(-1, self.hidden, self.pieces)
        return self.out(pieces.amax(dim=2))


class MixtureOfExperts(nn.Module):
    """Every expert sees every input; a softmax weighs their outputs."""

    def __init__(self, hidden=(6, 10, 14)):
        super().__init__()
        self.gate = nn.Linear(5, len(hidden))
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(5, h), nn.ReLU(), nn.Linear(h, 4)) for h in hidden
        )

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).softmax(dim=-1)  # [B, experts]
        outputs = torch.stack([expert(x) for expert in self.experts], dim=1)  # [B, experts, 4]
        return (weights.unsqueeze(-1) * outputs).sum(dim=1)


class StackedExperts(nn.Module):
    """All experts in one tensor a layer."""

    def __init__(self, hidden=10, experts=7, inputs=5, outputs=4):
        super().__init__()
        self.gate = nn.Linear(inputs, experts)
        self.up = nn.Parameter(torch.randn(experts, inputs, hidden) * 0.3)
        self.up_bias = nn.Parameter(torch.randn(experts, 1, hidden) * 0.3)
        self.down = nn.Parameter(torch.randn(experts, hidden, outputs) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).softmax(dim=-1)  # [B, experts]
        inner = torch.einsum("bi,eih->ebh", x, self.up) + self.up_bias
        outputs = torch.bmm(F.gelu(inner), self.down)  # [experts, B, outputs]
        return torch.einsum("be,ebo->bo", weights, outputs)


class MeanPoolClassifier(nn.Module):
    def __init__(self, width=6, hidden=10):
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.hidden = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, 3)

    def forward(self, tokens: Tensor) -> Tensor:  # [B, S]
        return self.out(torch.relu(self.hidden(self.embedding(tokens).mean(dim=1))))


class BagClassifier(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.bag = nn.EmbeddingBag(11, width, mode="mean")
        self.out = nn.Linear(width, 3)

    def forward(self, tokens: Tensor) -> Tensor:  # [B, S]
        return self.out(self.bag(tokens))


class TwoTowers(nn.Module):
    """Matrix factorisation: the features of a user times those of an item, summed."""

    def __init__(self, width=6, hidden=10):
        super().__init__()
        self.users = nn.Embedding(9, width)
        self.items = nn.Sequential(nn.Linear(5, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:  # [B], [B, 5] -> [B]
        return (self.users(user) * self.items(item)).sum(dim=-1)


class WideAndDeep(nn.Module):
    """Embeddings of two fields beside numeric features."""

    def __init__(self, first=6, second=10, hidden=14):
        super().__init__()
        self.first = nn.Embedding(7, first)
        self.second = nn.Embedding(8, second)
        self.deep = nn.Linear(first + second + 5, hidden)
        self.wide = nn.Linear(5, 3)
        self.out = nn.Linear(hidden, 3)

    def forward(self, fields: Tensor, numbers: Tensor) -> Tensor:  # [B, 2], [B, 5] -> [B, 3]
        x = torch.cat([self.first(fields[:, 0]), numbers, self.second(fields[:, 1])], dim=1)
        return self.wide(numbers) + self.out(torch.relu(self.deep(x)))


class DeepSets(nn.Module):
    def __init__(self, inner=6, pooled=10, outer=14, mean=False):
        super().__init__()
        self.mean = mean
        self.phi = nn.Sequential(nn.Linear(5, inner), nn.ReLU(), nn.Linear(inner, pooled), nn.ReLU())
        self.rho = nn.Sequential(nn.Linear(pooled, outer), nn.ReLU(), nn.Linear(outer, 3))

    def forward(self, x: Tensor) -> Tensor:  # [B, S, 5]
        x = self.phi(x)
        return self.rho(x.mean(dim=1) if self.mean else x.sum(dim=1))


class GraphConvolutions(nn.Module):
    """Kipf and Welling's network with a dense, symmetrically normalised adjacency matrix."""

    def __init__(self, hidden=6, second=10):
        super().__init__()
        self.first = nn.Linear(5, hidden, bias=False)
        self.second = nn.Linear(hidden, second, bias=False)
        self.bias = nn.Parameter(torch.randn(second) * 0.3)
        self.out = nn.Linear(second, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:  # [N, 5], [N, N] -> [N, 3]
        adjacency = (edges + edges.T > 0).to(x.dtype) + torch.eye(x.size(0), dtype=x.dtype)
        scale = adjacency.sum(dim=1).rsqrt()
        adjacency = scale[:, None] * adjacency * scale[None, :]
        x = torch.relu(adjacency @ self.first(x))
        x = torch.relu(adjacency @ self.second(x) + self.bias)
        return self.out(x)


class DuelingHeads(nn.Module):
    def __init__(self, shared=6, value=10, advantage=14, actions=4):
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(5, shared), nn.ReLU())
        self.value = nn.Sequential(nn.Linear(shared, value), nn.ReLU(), nn.Linear(value, 1))
        self.advantage = nn.Sequential(nn.Linear(shared, advantage), nn.ReLU(), nn.Linear(advantage, actions))

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(x)
        advantage = self.advantage(x)  # [B, actions]
        return self.value(x) + advantage - advantage.mean(dim=1, keepdim=True)


class MeanOfFeatures(nn.Module):
    """What silent features would change: the mean is over them."""

    def __init__(self, hidden=6, averaged=10):
        super().__init__()
        self.first = nn.Linear(5, hidden)
        self.second = nn.Linear(hidden, averaged)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x))).mean(dim=-1)


class SoftMemory(nn.Module):
    """A softmax over slots: one more slot takes weight from all others."""

    def __init__(self, width=6, slots=10):
        super().__init__()
        self.query = nn.Linear(5, width)
        self.keys = nn.Parameter(torch.randn(slots, width))
        self.values = nn.Linear(slots, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.values(F.softmax(self.query(x) @ self.keys.T, dim=-1))


class MixerBlock(nn.Module):
    def __init__(self, tokens, width, token_hidden, channel_hidden):
        super().__init__()
        self.token_norm = nn.LayerNorm(width)
        self.tokens = nn.Sequential(
            nn.Linear(tokens, token_hidden), nn.GELU(), nn.Linear(token_hidden, tokens)
        )
        self.channel_norm = nn.LayerNorm(width)
        self.channels = nn.Sequential(
            nn.Linear(width, channel_hidden), nn.GELU(), nn.Linear(channel_hidden, width)
        )

    def forward(self, x: Tensor) -> Tensor:  # [B, tokens, width]
        x = x + self.tokens(self.token_norm(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.channel_norm(x))


class MlpMixer(nn.Module):
    def __init__(self, token_hidden=10, channel_hidden=14, width=6):
        super().__init__()
        self.patches = nn.Conv2d(3, width, kernel_size=4, stride=4)
        self.block = MixerBlock(4, width, token_hidden, channel_hidden)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:  # [B, 3, 8, 8]
        x = self.patches(x).flatten(2).transpose(1, 2)  # [B, 4, width]
        return self.out(self.norm(self.block(x)).mean(dim=1))


def mlp(hidden=6, second=10):
    return nn.Sequential(
        nn.Linear(5, hidden), nn.ReLU(), nn.Linear(hidden, second), nn.ReLU(), nn.Linear(second, 3)
    )


def deep_mlp(a=6, b=10, c=14, d=18):
    return nn.Sequential(
        *(nn.Linear(5, a), nn.GELU()),
        *(nn.Linear(a, b), nn.PReLU(b)),
        *(nn.Linear(b, c), nn.SiLU()),
        *(nn.Linear(c, d), nn.Softplus()),
        nn.Linear(d, 3),
    )


def dropout_mlp(hidden=6, second=10):
    return nn.Sequential(
        *(nn.Linear(5, hidden), nn.ReLU(), nn.Dropout(0.2)),
        *(nn.Linear(hidden, second), nn.SELU(), nn.AlphaDropout(0.1)),
        nn.Linear(second, 3),
    )


def batchnorm_mlp(hidden=6, second=10):
    return nn.Sequential(
        *(nn.Linear(5, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()),
        *(nn.Linear(hidden, second), nn.BatchNorm1d(second, affine=False), nn.Tanh()),
        nn.Linear(second, 3),
    )


def normed_mlp(norm, first=6, second=10):
    return nn.Sequential(
        *(nn.Linear(5, first), norm(first), nn.ReLU()),
        *(nn.Linear(first, second), nn.ReLU()),
        nn.Linear(second, 3),
    )
