"""Models of residual blocks: by hand, and as the transformers library has them."""

import torch
from torch import Tensor, nn
from torch.nn import functional

import diffstruct as ds
from zoo.libraries import library


class MLPBlock(nn.Module):
    """A pre-norm block of one branch."""

    def __init__(self, width=8, hidden=12):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(functional.gelu(self.up(self.norm(x))))


class InPlaceBlock(MLPBlock):
    """A block that writes into its input, which it needs for its gradient."""

    def forward(self, x: Tensor) -> Tensor:
        x += self.down(functional.gelu(self.up(self.norm(x))))
        return x


class GatedBlock(MLPBlock):
    """A branch that ends in a product, of which one factor is enough to silence it."""

    def __init__(self, width=8):
        super().__init__(width)
        self.gate = nn.Linear(12, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.gelu(self.up(self.norm(x)))
        return x + self.gate(hidden).sigmoid() * self.down(hidden)


class PostNormBlock(MLPBlock):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.down(functional.gelu(self.up(x))))


class TransformerBlock(nn.Module):
    """A pre-norm block of two branches."""

    def __init__(self, width=8, heads=2):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 12), nn.GELU(), nn.Linear(12, width), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norms[0](x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = functional.scaled_dot_product_attention(q, k, v, scale=0.5)
        x = x + self.project(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


class ResNetBlock(nn.Module):
    """Two convolutions, each with a BatchNorm; the sum is rectified."""

    def __init__(self, channels=6):
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.conv2, self.bn2 = (
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.relu(out)


class ScaledBlock(nn.Module):
    """A layer scale and, in training, stochastic depth."""

    def __init__(self, width=8):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, 12), nn.ReLU(), nn.Linear(12, width))
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        out = self.scale * self.branch(x)
        if self.training:
            out = out * (torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) < 0.8) / 0.8
        return x + out


class Net(nn.Module):
    """A stem, blocks in a `ModuleList`, and a head."""

    def __init__(self, block=MLPBlock, depth=3, width=8):
        super().__init__()
        self.depth = depth
        self.stem, self.head = nn.Linear(5, width), nn.Linear(width, 3)
        self.blocks = nn.ModuleList(block(width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks[: self.depth]:
            x = block(x)
        return self.head(x)


class Stages(nn.Module):
    """Two stages of blocks, each with a stream of its own, as ResNets have."""

    def __init__(self):
        super().__init__()
        self.stem, self.between, self.head = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        self.stages = nn.ModuleList(nn.Sequential(*(MLPBlock(width) for _ in range(3))) for width in (8, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages[0](self.stem(x))
        return self.head(self.stages[1](self.between(x)))


class Unrolled(Net):
    """Code that names each block."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.blocks[2](self.blocks[1](self.blocks[0](x))))


class Shared(Net):
    """One block, three times."""

    def __init__(self):
        super().__init__(depth=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = self.blocks[0](x)
        return self.head(x)


class Backwards(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in reversed(self.blocks):
            x = block(x)
        return self.head(x)


def residual_mlp():
    blocks = nn.Sequential(*[MLPBlock() for _ in range(3)])
    return nn.Sequential(nn.Linear(5, 8), blocks, nn.Linear(8, 3))


def declared():
    def branch():
        return nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))

    return nn.Sequential(nn.Linear(5, 8), ds.nn.Residual(branch, depth=3), nn.Linear(8, 3))


def resnet():
    stage = nn.Sequential(*[ResNetBlock() for _ in range(3)])
    stem = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*stem, stage, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


def gpt2():
    hf = library()
    sizes = {"n_embd": 12, "n_layer": 3, "n_head": 3, "n_positions": 16, "vocab_size": 31}
    return hf.GPT2LMHeadModel(hf.GPT2Config(bos_token_id=0, eos_token_id=1, **sizes))


def llama(kind="Llama"):
    hf = library()
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "intermediate_size": 10, "vocab_size": 31}
    config = getattr(hf, f"{kind}Config")(num_attention_heads=4, num_key_value_heads=2, **sizes)
    return getattr(hf, f"{kind}ForCausalLM")(config)


def qwen2():
    return llama("Qwen2")


def vit():
    hf = library()
    sizes = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 10}
    return hf.ViTForImageClassification(hf.ViTConfig(image_size=16, patch_size=4, num_labels=3, **sizes))


VECTORS = (torch.randn(16, 5, generator=torch.Generator().manual_seed(0)),)
SEQUENCES = (torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0)),)
IMAGES = (torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)),)
TOKENS = (torch.randint(31, (3, 7), generator=torch.Generator().manual_seed(0)),)

MODELS = {
    "residual MLP": (residual_mlp, VECTORS, "1"),
    "gated": (lambda: Net(GatedBlock), VECTORS, "blocks"),
    "transformer": (lambda: Net(TransformerBlock), SEQUENCES, "blocks"),
    "layer scale": (lambda: Net(ScaledBlock), VECTORS, "blocks"),
    "declared": (declared, VECTORS, "1"),
    "ResNet stage": (resnet, IMAGES, "2"),
    "GPT-2": (gpt2, TOKENS, "transformer.h"),
    "Llama": (llama, TOKENS, "model.layers"),
    "Qwen2": (qwen2, TOKENS, "model.layers"),
    "ViT": (vit, IMAGES, "vit.layers"),
}
"""By name: a model with three blocks, example inputs, and the name of its depth."""
