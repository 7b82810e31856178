"""One trainable factor per unit: the importance ("salience") in revisions 1 and 2 of the paper."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffstruct.errors import StructureError
from diffstruct.nn.readers import reader_slots
from diffstruct.width.follows import Attribute
from diffstruct.width.layout import Layout
from diffstruct.width.width import Role, Slot


class Multiplier(nn.Module):
    """Multiply each unit's output by a trainable factor: `y = x * weight`.

    The factors scale a layer's output for the layers after it, not for its own recurrent weights, which the
    paper found to work better. They start at 1.

    >>> layer = Multiplier(3)
    >>> layer(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[1., 2., 3.]], grad_fn=<MulBackward0>)
    >>> layer.fold_into(nn.Linear(3, 2))
    Linear(in_features=3, out_features=2, bias=True)

    Args:
        num_units: size of the last dimension of the input.
        device: of the factors.
        dtype: of the factors.
    """

    def __init__(
        self,
        num_units: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_units = num_units
        self.weight = nn.Parameter(torch.ones(num_units, device=device, dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:
        """Scale `input` `[..., num_units]`, same shape out.

        Raises:
            StructureError: the last dimension has another size.
        """
        if input.shape[-1] != self.num_units:  # sizes 1 and n would broadcast
            raise StructureError(
                f"a Multiplier of {self.num_units} units got an input of {[*input.shape]}: "
                "declare it with feeds(), so that it follows the layer's width"
            )
        return input * self.weight

    def fold_into(self, reader: nn.Linear) -> nn.Linear:
        """A plain `nn.Linear` that computes from `x` what `reader` computes from this module's output."""
        folded = nn.Linear(
            reader.in_features,
            reader.out_features,
            bias=reader.bias is not None,
            device="meta",  # all weights are written below, so none are drawn
            dtype=reader.weight.dtype,
        ).to_empty(device=reader.weight.device)
        with torch.no_grad():
            folded.weight.copy_(reader.weight * self.weight)  # [outputs, units] * [units]
            if reader.bias is not None:
                folded.bias.copy_(reader.bias)
        return folded

    def extra_repr(self) -> str:
        """What `print` shows between the parentheses."""
        return f"num_units={self.num_units}"


@reader_slots.register
def _(reader: Multiplier, layout: Layout) -> tuple[list[Slot], Attribute]:
    slot = Slot(reader, "weight", 0, Role.MULTIPLIER, layout)
    return [slot], Attribute(reader, "num_units", layout)
