"""Recurrent networks. Shapes: B batch, T time; torch.nn puts time first unless told otherwise."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LastState(nn.Module):
    """Any of torch.nn's recurrent layers, and a linear layer that reads its last output."""

    def __init__(self, layer, width, batch_first=False):
        super().__init__()
        self.rnn = layer
        self.batch_first = batch_first
        self.out = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:  # [T, B, 5], or [B, T, 5]
        states, _ = self.rnn(x)
        return self.out(states[:, -1] if self.batch_first else states[-1])


class EveryState(nn.Module):
    """A bidirectional layer; a linear layer reads both directions at each time."""

    def __init__(self, layer, width):
        super().__init__()
        self.rnn = layer
        self.out = nn.Linear(2 * width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0])


class FinalStates(nn.Module):
    """Reads the last hidden state of each layer and direction, side by side."""

    def __init__(self, hidden=6):
        super().__init__()
        self.rnn = nn.GRU(5, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(4 * hidden, 3)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, 5]
        _, final = self.rnn(x)  # [4, B, hidden]
        return self.out(final.transpose(0, 1).flatten(1))


class LearnedStart(nn.Module):
    """An Elman network whose first state is a parameter."""

    def __init__(self, hidden=6):
        super().__init__()
        self.rnn = nn.RNN(5, hidden, nonlinearity="relu")
        self.start = nn.Parameter(torch.randn(1, 1, hidden))
        self.out = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:  # [T, B, 5]
        states, _ = self.rnn(x, self.start.expand(-1, x.size(1), -1).contiguous())
        return self.out(states)


class LSTMLoop(nn.Module):
    def __init__(self, hidden=6):
        super().__init__()
        self.hidden_size = hidden
        self.cell = nn.LSTMCell(5, hidden)
        self.out = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:  # [T, B, 5]
        h = torch.zeros(x.size(1), self.hidden_size, device=x.device, dtype=x.dtype)
        c = torch.zeros(x.size(1), self.hidden_size, device=x.device, dtype=x.dtype)
        for step in x:
            h, c = self.cell(step, (h, c))
        return self.out(h)


class GRULoop(nn.Module):
    """Two cells, one above the other; the states are returned as well, so they are outputs of the model."""

    def __init__(self, first=6, second=10):
        super().__init__()
        self.first = nn.GRUCell(5, first)
        self.second = nn.GRUCell(first, second)

    def forward(self, x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:  # [T, B, 5], [B, second]
        low = x.new_zeros(x.size(1), self.first.hidden_size)
        high, states = start, []
        for step in x.unbind(0):
            low = self.first(step, low)
            high = self.second(low, high)
            states.append(high)
        return torch.stack(states), high


class HandwrittenLSTM(nn.Module):
    """All gates in one parameter for inputs and one for states."""

    def __init__(self, hidden=6):
        super().__init__()
        self.hidden = hidden
        self.inputs = nn.Parameter(0.3 * torch.randn(5, 4 * hidden))
        self.states = nn.Parameter(0.3 * torch.randn(hidden, 4 * hidden))
        self.bias = nn.Parameter(torch.zeros(4 * hidden))
        self.out = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, 5]
        n = self.hidden
        h, c = torch.zeros(x.size(0), n), torch.zeros(x.size(0), n)
        for t in range(x.size(1)):
            gates = x[:, t] @ self.inputs + h @ self.states + self.bias  # [B, 4 hidden]
            keep, write = torch.sigmoid(gates[:, :n]), torch.sigmoid(gates[:, n : 2 * n])
            new, show = torch.tanh(gates[:, 2 * n : 3 * n]), torch.sigmoid(gates[:, 3 * n :])
            c = keep * c + write * new
            h = show * torch.tanh(c)
        return self.out(h)


class HandwrittenGRU(nn.Module):
    """A linear layer per gate, on inputs and state side by side."""

    def __init__(self, hidden=6):
        super().__init__()
        self.hidden = hidden
        self.reset = nn.Linear(5 + hidden, hidden)
        self.update = nn.Linear(5 + hidden, hidden)
        self.new = nn.Linear(5 + hidden, hidden)
        self.out = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, 5]
        h = torch.zeros(x.shape[0], self.hidden)
        for step in x.unbind(1):
            both = torch.cat((step, h), dim=1)
            reset, update = torch.sigmoid(self.reset(both)), torch.sigmoid(self.update(both))
            new = torch.tanh(self.new(torch.cat((step, reset * h), dim=1)))
            h = update * h + (1 - update) * new
        return self.out(h)


class ConvLSTM(nn.Module):
    def __init__(self, hidden=6):
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(2 + hidden, 4 * hidden, 3, padding=1)
        self.out = nn.Conv2d(hidden, 1, 1)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, 2, H, W]
        batch, _, _, height, width = x.shape
        h = torch.zeros(batch, self.hidden, height, width)
        c = torch.zeros_like(h)
        for step in x.unbind(1):
            i, f, o, g = self.gates(torch.cat([step, h], dim=1)).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.out(h)


class Translation(NamedTuple):
    logits: Tensor
    attention: Tensor


class Seq2Seq(nn.Module):
    """An encoder, and a decoder that starts from its last state and attends to all of its states."""

    def __init__(self, source=6, hidden=10, target=7, inner=9):
        super().__init__()
        self.source = nn.Embedding(11, source)
        self.target = nn.Embedding(12, target)
        self.encoder = nn.GRU(source, hidden, batch_first=True)
        self.decoder = nn.GRUCell(target + hidden, hidden)
        self.key, self.query = nn.Linear(hidden, inner), nn.Linear(hidden, inner)
        self.score = nn.Linear(inner, 1)
        self.out = nn.Linear(2 * hidden, 12)

    def forward(self, source: Tensor, target: Tensor) -> Translation:  # [B, S], [B, T]
        states, last = self.encoder(self.source(source))  # [B, S, hidden], [1, B, hidden]
        h, logits, attended = last.squeeze(0), [], []
        for token in self.target(target).unbind(1):
            scores = self.score(torch.tanh(self.key(states) + self.query(h).unsqueeze(1)))  # [B, S, 1]
            weights = scores.softmax(dim=1)
            context = (weights * states).sum(dim=1)
            h = self.decoder(torch.cat([token, context], dim=1), h)
            logits.append(self.out(torch.cat([h, context], dim=1)))
            attended.append(weights.squeeze(2))
        return Translation(torch.stack(logits, dim=1), torch.stack(attended, dim=1))


class TiedLanguageModel(nn.Module):
    """The embedding is the last layer as well."""

    def __init__(self, width=6, hidden=10, vocabulary=11):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.rnn = nn.LSTM(width, hidden, batch_first=True)
        self.project = nn.Linear(hidden, width)
        self.out = nn.Linear(width, vocabulary)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:  # [B, T]
        states, _ = self.rnn(self.embedding(tokens))
        return self.out(self.project(states))


class PackedSequences(nn.Module):
    """Sequences of different lengths, packed."""

    def __init__(self, width=6, hidden=10):
        super().__init__()
        self.embedding = nn.Embedding(11, width, padding_idx=0)
        self.rnn = nn.GRU(width, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 3)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:  # [B, T], [B]
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, last = self.rnn(packed)  # [1, B, hidden]
        return self.out(last[0])


class StackedSizes(nn.Module):
    """Recurrent layers of different sizes, with dropout between, and a sum of two of them."""

    def __init__(self, first=6, second=10):
        super().__init__()
        self.first = nn.LSTM(5, first)
        self.second = nn.GRU(first, second)
        self.third = nn.RNN(second, second)
        self.dropout = nn.Dropout(0.1)
        self.out = nn.Linear(second, 3)

    def forward(self, x: Tensor) -> Tensor:  # [T, B, 5]
        x, _ = self.first(x)
        x, _ = self.second(self.dropout(x))
        y, _ = self.third(x)
        return F.log_softmax(self.out(x + y), dim=-1)
