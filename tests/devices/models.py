"""Small models of each kind, each with inputs and classes to learn, the same on every device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES = 4
Case = tuple[nn.Module, Tensor, Tensor]


def mlp() -> Case:
    """Two hidden layers."""
    layers = nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, CLASSES)
    x = torch.randn(64, 6)
    return nn.Sequential(*layers), x, x[:, :CLASSES].argmax(1)


def convolutions() -> Case:
    """With BatchNorm."""
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )
    x = torch.randn(64, 1, 8, 8)
    corners = x[:, 0, :4, :4], x[:, 0, :4, 4:], x[:, 0, 4:, :4], x[:, 0, 4:, 4:]
    return model, x, torch.stack([corner.abs().sum((1, 2)) for corner in corners]).argmax(0)


class Encoder(nn.Module):
    """`nn.TransformerEncoder` between embeddings and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(CLASSES, 24)
        layer = nn.TransformerEncoderLayer(24, 4, 48, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.readout = nn.Linear(24, CLASSES)

    def forward(self, text: Tensor) -> Tensor:
        """Text `[batch, time]` to logits `[batch, time, classes]`."""
        return self.readout(self.encoder(self.token(text)))


def encoder() -> Case:
    """Attention with dropout; each token is to be mapped to another."""
    x = torch.randint(CLASSES, (16, 8))
    return Encoder(), x, (x + 1) % CLASSES


def lstm() -> Case:
    """A recurrent layer, of which the last step is read."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.readout = nn.LSTM(3, 16, batch_first=True), nn.Linear(16, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.readout(self.lstm(x)[0][:, -1])

    x = torch.randn(64, 5, 3)
    return Last(), x, x.sum(1).abs().cumsum(1)[:, -1].long().clamp(max=CLASSES - 1)


class Logits(nn.Module):
    """A model of `transformers` that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, text: Tensor) -> Tensor:
        """Text `[batch, time]` to logits `[batch, time, classes]`."""
        return self.model(text, use_cache=False).logits


def gpt2() -> Case:
    """GPT-2, two layers."""
    import transformers

    config = transformers.GPT2Config(
        vocab_size=CLASSES, n_positions=8, n_embd=24, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    x = torch.randint(CLASSES, (16, 8))
    return Logits(transformers.GPT2LMHeadModel(config)), x, (x + 1) % CLASSES


def llama() -> Case:
    """Llama, two layers, two heads for each of keys and values."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=CLASSES,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    x = torch.randint(CLASSES, (16, 8))
    return Logits(transformers.LlamaForCausalLM(config)), x, (x + 1) % CLASSES


MODELS: dict[str, Callable[[], Case]] = {
    "mlp": mlp,
    "convolutions": convolutions,
    "encoder": encoder,
    "lstm": lstm,
    "gpt2": gpt2,
    "llama": llama,
}


def case(name: str, device: torch.device) -> Case:
    """A model with its data; on every device the same weights and numbers."""
    torch.manual_seed(0)
    model, x, y = MODELS[name]()
    return model.to(device), x.to(device), y.to(device)


def loss_of(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of classes that lie in the last dimension."""
    return nn.functional.cross_entropy(logits.flatten(0, -2).float(), y.flatten())
