"""How modules are wired: residuals, concatenation, sharing, tying, parametrizations, inputs, outputs."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm


class ResidualMlp(nn.Module):
    def __init__(self, width=6, first=10, second=14):
        super().__init__()
        self.embed = nn.Linear(5, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, h), nn.BatchNorm1d(h), nn.ReLU(), nn.Linear(h, width))
            for h in (first, second)
        )
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


class ResidualOnInput(nn.Module):
    """The stream is the input itself."""

    def __init__(self, hidden=6):
        super().__init__()
        self.inner = nn.Linear(5, hidden)
        self.outer = nn.Linear(hidden, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + self.outer(torch.tanh(self.inner(x))))


class ConcatSkip(nn.Module):
    """The input comes back beside hidden features, as in radiance fields."""

    def __init__(self, first=6, second=10):
        super().__init__()
        self.first = nn.Linear(5, first)
        self.second = nn.Linear(first + 5, second)
        self.out = nn.Linear(second + first, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        z = torch.relu(self.second(torch.cat([y, x], dim=-1)))
        return self.out(torch.cat([z, y], dim=-1))


class TiedAutoencoder(nn.Module):
    """The decoder's weights are the encoder's, transposed."""

    def __init__(self, first=10, code=6):
        super().__init__()
        self.first, self.second = nn.Linear(7, first), nn.Linear(first, code)
        self.bias1, self.bias0 = nn.Parameter(torch.zeros(first)), nn.Parameter(torch.zeros(7))

    def forward(self, x: Tensor) -> Tensor:
        code = torch.relu(self.second(torch.relu(self.first(x))))
        y = torch.relu(F.linear(code, self.second.weight.t(), self.bias1))
        return F.linear(y, self.first.weight.t(), self.bias0)


class Siamese(nn.Module):
    def __init__(self, hidden=6, code=10):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(5, hidden), nn.ReLU(), nn.Linear(hidden, code), nn.Tanh())
        self.out = nn.Linear(code, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.out((self.encoder(left) - self.encoder(right)).abs())


class SharedDepth(nn.Module):
    """One module at two depths, another of the same size between."""

    def __init__(self, width=6):
        super().__init__()
        self.embed = nn.Linear(5, width)
        self.shared = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.shared(self.embed(x)))
        return self.out(torch.relu(self.shared(self.norm(x))))


class NeuralOde(nn.Module):
    """Euler steps along one field."""

    def __init__(self, state=6, hidden=10, steps=4):
        super().__init__()
        self.steps = steps
        self.embed = nn.Linear(5, state)
        self.field = nn.Sequential(nn.Linear(state, hidden), nn.Tanh(), nn.Linear(hidden, state))
        self.out = nn.Linear(state, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        for _ in range(self.steps):
            h = h + self.field(h) / self.steps
        return self.out(h)


class Autoencoder(nn.Module):
    """Several outputs, by name."""

    def __init__(self, inner=10, outer=14, code=6):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(7, inner), nn.ReLU(), nn.Linear(inner, code))
        self.decoder = nn.Sequential(nn.Linear(code, outer), nn.ReLU(), nn.Linear(outer, 7))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        code = self.encoder(x)
        return {"code": code, "reconstruction": self.decoder(code)}


class VariationalAutoencoder(nn.Module):
    def __init__(self, inner=10, outer=14, latent=6):
        super().__init__()
        self.encoder = nn.Linear(7, inner)
        self.mean, self.log_variance = nn.Linear(inner, latent), nn.Linear(inner, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, outer), nn.ReLU(), nn.Linear(outer, 7))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.relu(self.encoder(x))
        mean, log_variance = self.mean(x), self.log_variance(x)
        code = mean
        if self.training:
            code = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.decoder(code), mean, log_variance


class ActorCritic(nn.Module):
    """A tuple of outputs of different shapes."""

    def __init__(self, shared=6, actor=10):
        super().__init__()
        self.shared = nn.Linear(5, shared)
        self.actor = nn.Sequential(nn.Linear(shared, actor), nn.Tanh(), nn.Linear(actor, 4))
        self.critic = nn.Linear(shared, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.shared(x))
        return self.actor(x).log_softmax(dim=-1), self.critic(x).squeeze(-1)


class Estimate(NamedTuple):
    value: Tensor
    spread: Tensor


class Heteroscedastic(nn.Module):
    """A NamedTuple of outputs."""

    def __init__(self, hidden=6):
        super().__init__()
        self.hidden = nn.Linear(5, hidden)
        self.value, self.spread = nn.Linear(hidden, 1), nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Estimate:
        x = torch.tanh(self.hidden(x))
        return Estimate(self.value(x), F.softplus(self.spread(x)))


class ImageAndQuestion(nn.Module):
    """Two inputs of different kinds; their features are multiplied."""

    def __init__(self, channels=6, words=7, joint=10):
        super().__init__()
        self.image = nn.Conv2d(3, channels, 3)
        self.words = nn.Embedding(11, words)
        self.from_image, self.from_words = nn.Linear(channels, joint), nn.Linear(words, joint)
        self.out = nn.Linear(joint, 4)

    def forward(self, image: Tensor, question: Tensor) -> Tensor:  # [B, 3, H, W], [B, T]
        image = torch.relu(self.image(image)).mean(dim=(-2, -1))
        words = self.words(question).sum(dim=1)
        return self.out(torch.tanh(self.from_image(image)) * torch.tanh(self.from_words(words)))


class NestedInputs(nn.Module):
    """A dict of tensors is the only input."""

    def __init__(self, left=6, right=10):
        super().__init__()
        self.layers = nn.ModuleDict({"left": nn.Linear(5, left), "right": nn.Linear(4, right)})
        self.out = nn.Linear(left + right, 3)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        features = [torch.relu(layer(batch[name])) for name, layer in self.layers.items()]
        return self.out(torch.cat(features, dim=1))


class UnequalSplit(nn.Module):
    """One layer whose features go two ways, cut at sizes that are kept as ints."""

    def __init__(self, passed=6, worked=10, hidden=14):
        super().__init__()
        self.passed, self.worked = passed, worked
        self.first = nn.Linear(5, passed + worked)
        self.work = nn.Sequential(nn.Linear(worked, hidden), nn.ReLU(), nn.Linear(hidden, 4))
        self.out = nn.Linear(passed, 4)

    def forward(self, x: Tensor) -> Tensor:
        passed, worked = torch.split(self.first(x), [self.passed, self.worked], dim=1)
        return self.out(torch.relu(passed)) + self.work(torch.relu(worked))


class MaskedAutoregression(nn.Module):
    """MADE: buffers mask the weights."""

    def __init__(self, first=6, second=10, inputs=5):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(inputs, first), nn.Linear(first, second)])
        self.out = nn.Linear(second, inputs)
        degrees = [torch.arange(n) % (inputs - 1) for n in (first, second)]
        self.register_buffer("mask0", (degrees[0][:, None] >= torch.arange(inputs)).float())
        self.register_buffer("mask1", (degrees[1][:, None] >= degrees[0]).float())
        self.register_buffer("mask2", (torch.arange(inputs)[:, None] > degrees[1]).float())

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.layers
        x = torch.relu(F.linear(x, first.weight * self.mask0, first.bias))
        x = torch.relu(F.linear(x, second.weight * self.mask1, second.bias))
        return F.linear(x, self.out.weight * self.mask2, self.out.bias)


class LayerScale(nn.Module):
    """A parameter and a constant per feature, and a parameter for all of them."""

    def __init__(self, width=6):
        super().__init__()
        self.first = nn.Linear(5, width)
        self.scale = nn.Parameter(torch.ones(width, 1))
        self.slope = nn.Parameter(torch.full((1,), 0.2))
        self.register_buffer("phase", torch.linspace(0, 3, width))
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sin(self.first(x) + self.phase) * self.scale.T
        return self.out(torch.where(x > 0, x, self.slope * x))


class StackedViews(nn.Module):
    """Two branches stacked on a new dimension and flattened into one another."""

    def __init__(self, width=6, hidden=11):
        super().__init__()
        self.left, self.right = nn.Linear(5, width), nn.Linear(5, width)
        self.hidden = nn.Linear(2 * width, hidden)
        self.out = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.stack([self.left(x), self.right(x)], dim=-1).flatten(1)  # features of both, interleaved
        return self.out(torch.relu(self.hidden(torch.relu(x))))


class UnitVectors(nn.Module):
    """Features scaled to length one: only a unit that is always zero leaves the others alone."""

    def __init__(self, scaled=6, hidden=10):
        super().__init__()
        self.hidden = nn.Linear(5, hidden)
        self.scaled = nn.Linear(hidden, scaled)
        self.out = nn.Linear(scaled, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.normalize(self.scaled(torch.relu(self.hidden(x))), dim=-1))


class Refined(nn.Module):
    """How often the layer is applied depends on its output: no export, and no two traces need agree."""

    def __init__(self, width=6, most=3):
        super().__init__()
        self.most = most
        self.embed = nn.Linear(5, width)
        self.refine = nn.Linear(width, width)
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for _ in range(self.most):
            x = torch.tanh(self.refine(x))
            if x.square().sum().item() < 0.1:
                break
        return self.out(x)


def weight_normed(first=6, second=10):
    return nn.Sequential(
        *(weight_norm(nn.Linear(5, first)), nn.ReLU()),
        *(weight_norm(nn.Linear(first, second)), nn.ReLU()),
        nn.Linear(second, 3),
    )


def spectrally_normed(first=6, second=10):
    return nn.Sequential(
        *(spectral_norm(nn.Linear(5, first)), nn.ReLU()),
        *(nn.Linear(first, second), nn.ReLU()),
        spectral_norm(nn.Linear(second, 3)),
    )
