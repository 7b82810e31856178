"""Recurrent layers that declare their own width: those of `torch.nn`, whose units can be added and removed.

They are subclasses: same arguments, same calls, same parameters, same numbers. All layers and directions of
one module share one width, since they share a hidden state; stack modules to learn the width of each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from diffstruct.errors import StructureError
from diffstruct.nn import kernels
from diffstruct.nn.kernels.elman import elman
from diffstruct.nn.kernels.gru import gru
from diffstruct.nn.kernels.lstm import lstm
from diffstruct.nn.kernels.sequence import LIKE, Kernel
from diffstruct.nn.kernels.sizes import is_faster
from diffstruct.nn.readers import reader_slots
from diffstruct.width.follows import Attribute
from diffstruct.width.layout import Axis, Fixed, Layout, Product
from diffstruct.width.width import Role, Slot, Width


class Recurrent(nn.RNNBase):
    """What the three layers share: their width, the call, and the copy as a `torch.nn` module."""

    gates: ClassVar[int]
    plain: ClassVar[Callable[..., nn.RNNBase]]
    kernel: ClassVar[Kernel]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._readers: list[nn.Module] = []
        self._axis = Axis(self.hidden_size)
        if self.proj_size:
            raise StructureError(
                "proj_size is not supported, since a projected layer has two widths: "
                "leave it at 0 and add an nn.Linear after the layer"
            )

    def feeds(self, *readers: nn.Module) -> None:
        """Declare which modules read this layer's output along its last dimension.

        Args:
            readers: `nn.Linear`, `ds.nn.Multiplier`, or recurrent layers of `ds.nn`, in any number.

        Raises:
            StructureError: a module is of another type, or its input size is not that of this output.
        """
        outputs = self.hidden_size * self._directions
        for reader in readers:
            for slot in reader_slots(reader, self._output)[0]:
                inputs = slot.tensor.shape[slot.dim]
                if inputs != outputs:
                    raise StructureError(
                        f"{reader} takes {inputs} inputs, but this layer has {outputs} outputs: "
                        "make the two sizes agree"
                    )
        self._readers.extend(readers)

    def declare_width(self, name: str) -> Width:
        """This layer's width, with all tensor dimensions that it occupies.

        Raises:
            StructureError: no reader has been declared.
        """
        if not self._readers:
            raise StructureError(
                f"no module is known to read {name!r}: declare which modules read the layer's output, "
                f"such as `{name}.feeds(readout)`"
            )
        slots = list(self._own_slots())
        attributes = [Attribute(self, "hidden_size", self._axis)]
        for reader in self._readers:
            read, attribute = reader_slots(reader, self._output)
            slots += read
            attributes.append(attribute)
        return Width(name, self._axis, tuple(slots), tuple(attributes))

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _output(self) -> Layout:
        """How the units lie in the layer's output: one direction after the other."""
        return Product((Fixed(self._directions), self._axis))

    def _own_slots(self) -> Iterator[Slot]:
        # weight_ih_l*: [gates * n, inputs]   weight_hh_l*: [gates * n, n]   bias_*: [gates * n]
        rows: Layout = Product((Fixed(self.gates), self._axis))
        for layer in range(self.num_layers):
            for suffix in ("", "_reverse")[: self._directions]:
                end = f"_l{layer}{suffix}"
                names = [f"weight_ih{end}", f"weight_hh{end}"]
                names += [f"bias_ih{end}", f"bias_hh{end}"] if self.bias else []
                for name in names:
                    yield Slot(self, name, 0, Role.INCOMING, rows)
                yield Slot(self, f"weight_hh{end}", 1, Role.RECURRENT, self._axis)
                if layer > 0:  # the output of the layer below, in both directions
                    yield Slot(self, f"weight_ih{end}", 1, Role.RECURRENT, self._output)

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """Run the sequence; see the `torch.nn` class of the same name for arguments and results."""
        # Not from `_flat_weights`, which torch updates when weights are replaced.
        own = self._parameters  # faster than getattr, where no parametrization replaces a weight
        weights: Any = [
            [own[name] if name in own else getattr(self, name) for name in names]
            for names in self._all_weights
        ]
        states = () if hx is None else hx if isinstance(hx, tuple) else (hx,)
        if not (isinstance(input, Tensor) and self._fits_kernel(input, weights, states)):
            outputs: tuple[Any, Any] = super().forward(input, hx)
            return outputs
        batched = input.dim() == 3
        steps = input if batched else input.unsqueeze(1)
        if not batched:
            states = tuple(state.unsqueeze(1) for state in states)  # [layers, batch, n]
        elif self.batch_first:
            steps = steps.transpose(0, 1)  # [steps, batch, inputs]
        biases = () if self.bias else (None, None)
        absent = () if states else (None,) * self.kernel.states
        if len(weights) == 1:
            steps, *last = self.kernel(steps, *weights[0], *biases, *states, *absent)
        else:
            lasts = []
            for layer, parameters in enumerate(weights):
                initial = [state[layer : layer + 1] for state in states]
                steps, *last = self.kernel(steps, *parameters, *biases, *initial, *absent)
                lasts.append(last)
            last = [torch.cat(layers) for layers in zip(*lasts, strict=True)]
        if not batched:
            steps, last = steps.squeeze(1), [state.squeeze(1) for state in last]
        elif self.batch_first:
            steps = steps.transpose(0, 1)
        return steps, last[0] if len(last) == 1 else tuple(last)

    def _fits_kernel(self, input: Tensor, weights: list[list[Tensor]], states: tuple[Tensor, ...]) -> bool:
        """Whether our kernel supports this call; torch's own code supports or refuses all others."""
        shape, dtype = input.shape, input.dtype
        if (
            len(shape) not in (2, 3)
            or shape[-1] != self.input_size
            or 0 in shape
            or dtype not in LIKE
            or self.bidirectional
            or self.mode == "RNN_RELU"
            or (self.dropout and self.training)
            or len(states) not in (0, self.kernel.states)
            or not kernels.available
        ):
            return False
        batch = 1 if len(shape) == 2 else shape[0 if self.batch_first else 1]
        if not is_faster(self.gates, self.hidden_size, batch, dtype):
            return False
        if states:
            expected = (self.num_layers, *([batch] if len(shape) == 3 else []), self.hidden_size)
            if not all(isinstance(state, Tensor) and state.shape == expected for state in states):
                return False
        for tensor in chain((input,), states, *weights):
            if tensor.dtype != dtype or not tensor.is_cpu:
                return False
        if input.layout != torch.strided or torch.is_autocast_enabled("cpu"):
            return False
        return torch.compiler.is_compiling() or not _transformed()

    def to_torch(self) -> nn.RNNBase:
        """A plain `torch.nn` module with a copy of the weights, in the same mode (training or not)."""
        options: dict[str, Any] = {"nonlinearity": self.nonlinearity} if self.gates == 1 else {}
        weight = next(self.parameters())
        module = self.plain(
            self.input_size,
            self.hidden_size,
            num_layers=self.num_layers,
            bias=self.bias,
            batch_first=self.batch_first,
            dropout=self.dropout,
            bidirectional=self.bidirectional,
            device="meta",  # all weights are copied, so none are drawn
            dtype=weight.dtype,
            **options,
        )
        module = module.to_empty(device=weight.device)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                mine = getattr(self, name)
                parameter.copy_(mine)
                parameter.requires_grad_(mine.requires_grad)
        return module.train(self.training)


def _transformed() -> bool:
    """Whether a transformation of torch is active that the kernels have no rule for."""
    return (
        torch._C._get_tracing_state() is not None  # torch.jit.trace
        or torch.autograd.forward_ad._current_level >= 0  # forward-mode derivatives
        or torch._C._are_functorch_transforms_active()
    )


class RNN(Recurrent, nn.RNN):
    """`torch.nn.RNN` whose units can be added and removed: same arguments, calls and results.

    Declare the modules that read it with `feeds`; `to_torch` returns a plain `torch.nn.RNN`.

    >>> layer, readout = RNN(3, 5), nn.Linear(5, 2)
    >>> layer.feeds(readout)
    >>> output, last = layer(torch.zeros(7, 1, 3))  # 7 steps of one sequence
    >>> output.shape
    torch.Size([7, 1, 5])
    >>> layer.declare_width("hidden").size
    5
    >>> layer.to_torch()
    RNN(3, 5)
    """

    gates = 1
    plain = nn.RNN
    kernel = elman


class GRU(Recurrent, nn.GRU):
    """`torch.nn.GRU` whose units can be added and removed: same arguments, calls and results.

    Declare the modules that read it with `feeds`; `to_torch` returns a plain `torch.nn.GRU`.

    >>> layer, readout = GRU(3, 5), nn.Linear(5, 2)
    >>> layer.feeds(readout)
    >>> output, last = layer(torch.zeros(7, 1, 3))  # 7 steps of one sequence
    >>> output.shape
    torch.Size([7, 1, 5])
    >>> layer.declare_width("hidden").size
    5
    >>> layer.to_torch()
    GRU(3, 5)
    """

    gates = 3
    plain = nn.GRU
    kernel = gru


class LSTM(Recurrent, nn.LSTM):
    """`torch.nn.LSTM` whose units can be added and removed: same arguments, calls and results.

    Declare the modules that read it with `feeds`; `to_torch` returns a plain `torch.nn.LSTM`.

    >>> layer, readout = LSTM(3, 5), nn.Linear(5, 2)
    >>> layer.feeds(readout)
    >>> output, (last, cell) = layer(torch.zeros(7, 1, 3))  # 7 steps of one sequence
    >>> output.shape
    torch.Size([7, 1, 5])
    >>> layer.declare_width("hidden").size
    5
    >>> layer.to_torch()
    LSTM(3, 5)

    Raises:
        StructureError: `proj_size` is not 0.
    """

    gates = 4
    plain = nn.LSTM
    kernel = lstm


@reader_slots.register
def _(reader: Recurrent, layout: Layout) -> tuple[list[Slot], Attribute]:
    names = ["weight_ih_l0", "weight_ih_l0_reverse"][: reader._directions]
    slots = [Slot(reader, name, 1, Role.OUTGOING, layout) for name in names]
    return slots, Attribute(reader, "input_size", layout)
