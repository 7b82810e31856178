"""The paper's network, and the multiplier of its first revision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diffstruct.errors import ConfigurationError, DataError
from diffstruct.nn import RNN, Multiplier

WEIGHT_SCALE = 0.01
"""Standard deviation of every initial weight, of the first unit as of new ones."""


class CharRNN(nn.Module):
    """The paper's network: an Elman layer and a linear readout of the next symbol.

    `h_t = tanh(W_xh x_t + W_hh h_{t-1} + b_h)`, `y_t = W_hy (m * h_t) + b_y`

    Args:
        symbols: size of the alphabet.
        units: hidden units.
        generator: the weights are drawn from it, N(0, 0.01^2); biases are 0.
        multiplier: the class of the multipliers on the hidden units; None for a network without.
        dtype: of all parameters.

    Attributes:
        alphabet: the symbols in their order, where it is known what they stand for: of a network that
            `load_run` has loaded.
    """

    def __init__(
        self,
        symbols: int,
        units: int,
        generator: torch.Generator,
        multiplier: type[Multiplier] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.alphabet: str | None = None
        self.rnn = RNN(symbols, units, dtype=dtype)
        self.multiplier = None if multiplier is None else multiplier(units, dtype=dtype)
        self.readout = nn.Linear(units, symbols, dtype=dtype)
        self.rnn.feeds(*(m for m in (self.multiplier, self.readout) if m is not None))
        with torch.no_grad():
            for parameter in (*self.rnn.parameters(), *self.readout.parameters()):
                if parameter.ndim > 1:
                    parameter.normal_(0, WEIGHT_SCALE, generator=generator)
                else:
                    parameter.zero_()
        # torch.nn.RNN has two biases that add up; the paper's network has one.
        self.rnn.bias_hh_l0.requires_grad_(False)

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predict the next symbols.

        Args:
            inputs: one-hot, `[steps, symbols]` or `[steps, batch, symbols]`.
            state: hidden state, `[1, n]` or `[1, batch, n]`; None for zeros.

        Returns:
            Logits, shaped like `inputs`, and the hidden state after the last step.
        """
        hidden, state = self.rnn(inputs, state)
        if self.multiplier is not None:
            hidden = self.multiplier(hidden)
        return self.readout(hidden), state

    @property
    def known_alphabet(self) -> str:
        """The alphabet.

        Raises:
            ConfigurationError: it is not known.
        """
        if self.alphabet is None:
            raise ConfigurationError(
                "what the network's symbols stand for is not known: set model.alphabet, a string of them"
            )
        return self.alphabet

    def encode(self, text: str) -> Tensor:
        """A text as the network reads it: one-hot, `[characters, symbols]`.

        Raises:
            DataError: a character is not in the alphabet.
            ConfigurationError: the alphabet is not known.
        """
        alphabet = self.known_alphabet
        places = {symbol: place for place, symbol in enumerate(alphabet)}
        for at, symbol in enumerate(text):
            if symbol not in places:
                raise DataError(
                    f"character {at + 1} of the text is {symbol!r}, which the network does not know: its "
                    f"alphabet is {alphabet!r:.200}"
                )
        weight = self.readout.weight
        found = torch.tensor([places[symbol] for symbol in text], dtype=torch.int64, device=weight.device)
        return torch.eye(len(alphabet), dtype=weight.dtype, device=weight.device)[found]


def parameters(symbols: int, units: int, multiplied: bool) -> int:
    """The parameters of a network, with both biases of its layer."""
    return units * (symbols + units + 2 + multiplied) + symbols * (units + 1)


def multiply_adds(symbols: int, units: int) -> int:
    """The multiply-adds of a network for one character, those of its matrix products."""
    return units * (2 * symbols + units)


class _DefectiveScale(torch.autograd.Function):
    """`y = x * m`, with revision 1's gradient of `m`."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return input * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (weight,) = ctx.saved_tensors
        scaled = grads[0] * weight  # [..., n]: right for the input, and, in the defect, for m as well
        return scaled, scaled.flatten(0, -2).sum(0)


class DefectiveMultiplier(Multiplier):
    """The multiplier of revision 1, whose gradient is wrong in a known way.

    The author's first program computes `dL/dm` as `(W_hy^T dy) * m` where the true one is
    `(W_hy^T dy) * h`. Kept because revision 1's figures were made with it; use `ds.nn.Multiplier` for
    anything else.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Scale `input` `[..., num_units]`, same shape out."""
        output: Tensor = _DefectiveScale.apply(input, self.weight)  # type: ignore[no-untyped-call]
        return output
