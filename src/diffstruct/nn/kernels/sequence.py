"""A recurrent layer over a whole sequence as one node of the graph, for any cell.

Each cell is a `Kernel`: compiled loops, the plain operations they are tested against, and two custom
operators, `diffstruct::<name>` and `diffstruct::<name>_backward`, which appear where the model is traced.
Dispatching an operator written in Python takes longer than the arithmetic of a small layer, so a call that is
not traced goes through `_Layer`, an autograd function with the operator's rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor, is_legacy_batchedtensor

from diffstruct.nn.kernels import threads
from diffstruct.nn.kernels.padding import padded

LIKE = {torch.float32: np.float32(0), torch.float64: np.float64(0)}
"""The types that have kernels, each with a number by which compiled code knows the type."""

_STATES = 5  # the index of the first initial state among the arguments


class Kernel:
    """A recurrent layer with one kind of cell.

    Its arguments are: `input` `[steps, batch, inputs]`, `weight_ih` `[gates * n, inputs]`,
    `weight_hh` `[gates * n, n]`, `bias_ih` and `bias_hh` `[gates * n]` or None, then each initial state
    `[1, batch, n]` or None (zero). Its results are: `output` `[steps, batch, n]`, then each state after the
    last step, `[1, batch, n]`; internally also `kept` `[steps, batch, blocks * padded(n)]`, which `backward`
    needs. Results are new tensors that share no memory.

    The compiled loops, `forward` and `backward`, take a number of the type of all tensors; the sizes `steps`,
    `batch`, `inputs` and `n`; where their part of the batch begins and ends; and the addresses, 0 for None,
    of what they read and of what they write.

    Args:
        name: the name of the operator, and of the module with the loops.
        states: 1, or 2 with an LSTM's cell state.
        blocks: how many blocks of padded units are kept of each step.
        reference: computes the same by plain differentiable operations, without `kept`.
    """

    def __init__(
        self, name: str, states: int, blocks: int, reference: Callable[..., tuple[Tensor, ...]]
    ) -> None:
        self.name, self.states, self.blocks, self.reference = name, states, blocks, reference
        self._register()

    @cached_property
    def loops(self) -> Any:
        """The compiled loops; importing them imports Numba."""
        return import_module(f"diffstruct.nn.kernels.{self.name}_loops")

    def __call__(self, *arguments: Tensor | None) -> tuple[Tensor, ...]:
        """The results for arguments of the right shapes on the CPU."""
        if _traced(arguments):
            results: tuple[Tensor, ...] = self.operator(*arguments)[:-1]
            return results
        return _apply(self, *arguments)

    def new(
        self, input: Tensor, weight_ih: Tensor, weight_hh: Tensor, *rest: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Uninitialised tensors for the results and `kept`."""
        (steps, batch, _), units = input.shape, weight_hh.shape[1]
        new = input.new_empty
        output, last = new(steps, batch, units), new(1, batch, units)
        kept = new(steps, batch, self.blocks * padded(units))
        return (output, last, kept) if self.states == 1 else (output, last, torch.empty_like(last), kept)

    def forward(self, *arguments: Tensor | None) -> tuple[Tensor, ...]:
        """The results and `kept`, without a graph."""
        given = _dense(arguments)
        return self.run(given, *_sizes(given))

    def run(
        self, given: Sequence[Any], sizes: tuple[Any, ...], cuts: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, ...]:
        """`forward` for arguments that are `_dense`."""
        results = self.new(*given)
        read, written = _addresses(given), _addresses(results)
        if len(cuts) == 1:
            self.loops.forward(*sizes, cuts[0], read, written)
        else:
            threads.run(self.loops.forward, [(*sizes, cut, read, written) for cut in cuts])
        return results

    def backward(
        self,
        grads: Sequence[Tensor | None],
        kept: Tensor,
        arguments: Sequence[Tensor | None],
        needs: Sequence[bool],
        measured: tuple[tuple[Any, ...], Sequence[tuple[int, int]]] | None = None,
    ) -> list[Tensor | None]:
        """The gradient of each argument, without a graph; None for those that `needs` does not mark.

        Args:
            grads: the gradient of each result; None is zero.
            kept: what `forward` kept.
            arguments: what `forward` got.
            needs: for each argument, whether its gradient is wanted.
            measured: `_sizes` of the arguments, if these are `_dense`.
        """
        given = _dense(arguments) if measured is None else arguments
        sizes, cuts = measured or _sizes(given)
        wanted = _like(given, needs)
        grads = _dense(grads)  # held here, since the loops only get addresses
        # The backward loops do not need the biases.
        read = _addresses((*grads, *given[: _STATES - 2], *given[_STATES:], kept))
        if len(cuts) == 1:
            self.loops.backward(*sizes, cuts[0], read, _addresses(wanted))
        else:
            self._backward_in_parts(sizes, cuts, read, given, wanted, needs)
        return wanted

    def _backward_in_parts(
        self,
        sizes: tuple[Any, ...],
        cuts: Sequence[tuple[int, int]],
        read: tuple[int, ...],
        given: Sequence[Tensor | None],
        wanted: Sequence[Tensor | None],
        needs: Sequence[bool],
    ) -> None:
        """The parts of the batch in parallel, all but the first with weight gradients of their own."""
        weights = [0 < index < _STATES and need for index, need in enumerate(needs)]
        owned = [wanted, *(_like(given, weights) for _ in cuts[1:])]
        calls = []
        for cut, own in zip(cuts, owned, strict=True):
            written = (*wanted[:1], *own[1:_STATES], *wanted[_STATES:])
            calls.append((*sizes, cut, read, _addresses(written)))
        threads.run(self.loops.backward, calls)
        for other in owned[1:]:  # in order, so that the sum is the same each time
            for total, part in zip(wanted, other, strict=True):
                if total is not None and part is not None:
                    total.add_(part)

    def _register(self) -> None:
        """Make the two custom operators."""
        states = ["Tensor? hidden", "Tensor? cell"][: self.states]
        weights = "Tensor input, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh"
        results = ", ".join(["Tensor"] * (self.states + 2))
        name, custom = f"diffstruct::{self.name}", partial(torch.library.custom_op, mutates_args=())
        forward: Any = custom(
            name,
            lambda *arguments: self.forward(*arguments),
            schema=f"({weights}, {', '.join(states)}) -> ({results})",
        )
        backward: Any = custom(
            f"{name}_backward",
            lambda *arguments: [each for each in self.backward(*arguments) if each is not None],
            schema="(Tensor?[] grads, Tensor kept, Tensor?[] arguments, bool[] needs) -> Tensor[]",
        )
        forward.register_fake(self.new)
        backward.register_fake(
            lambda grads, kept, arguments, needs: [
                tensor for tensor in _like(_dense(arguments), needs) if tensor is not None
            ]
        )

        def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, ...]) -> None:
            ctx.mark_non_differentiable(output[-1])
            _save(ctx, self, inputs, output[-1])
            ctx.measured = None

        forward.register_autograd(
            lambda ctx, *grads: _gradients(ctx, ctx.needs_input_grad, grads[:-1]),
            setup_context=setup_context,
        )
        self.operator, self.operator_backward = forward, backward


_ORDINARY = {Tensor, nn.Parameter, type(None)}


def _traced(tensors: Sequence[Tensor | None]) -> bool:
    """Whether operators are being recorded, or some tensors have no memory."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or not _ORDINARY.issuperset(map(type, tensors))
    )


def _batched(grad: Tensor | None) -> bool:
    """Whether this represents many gradients at once, as under `torch.vmap`."""
    return grad is not None and (is_functorch_wrapped_tensor(grad) or is_legacy_batchedtensor(grad))


def _dense(tensors: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """The tensors as the loops read them: contiguous, and without a pending negation."""
    for tensor in tensors:
        if tensor is not None and (not tensor.is_contiguous() or tensor.is_neg()):
            return [None if each is None else each.resolve_neg().contiguous() for each in tensors]
    return tensors


def _addresses(tensors: Sequence[Tensor | None]) -> tuple[int, ...]:
    """The addresses of the tensors, 0 for None."""
    return tuple([0 if tensor is None else tensor.data_ptr() for tensor in tensors])


def _like(tensors: Sequence[Tensor | None], wanted: Sequence[bool]) -> list[Tensor | None]:
    """An uninitialised tensor like each that is wanted and not None; None for the others."""
    return [
        torch.empty_like(tensor) if need and tensor is not None else None
        for tensor, need in zip(tensors, wanted, strict=True)
    ]


def _sizes(arguments: Sequence[Tensor | None]) -> tuple[tuple[Any, ...], list[tuple[int, int]]]:
    """The loops' first arguments, and how the batch is divided among threads."""
    input, _, weight_hh, *_ = arguments
    assert input is not None
    assert weight_hh is not None
    (steps, batch, inputs), (rows, units) = input.shape, weight_hh.shape
    cuts = threads.parts(batch, steps * batch * rows * (inputs + units))
    return (LIKE[input.dtype], (steps, batch, inputs, units)), cuts


def _save(ctx: Any, kernel: Kernel, arguments: Sequence[Tensor | None], kept: Tensor) -> None:
    """Set up the node of the graph, that of the operator or that of `_Layer`."""
    ctx.kernel = kernel
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*arguments, kept)


def _gradients(ctx: Any, needs: Sequence[bool], grads: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """The backward of the graph's node: the gradient of each argument, or None."""
    kernel: Kernel = ctx.kernel
    *arguments, kept = ctx.saved_tensors
    if torch.is_grad_enabled() or any(map(_batched, grads)):
        # Second derivatives are wanted, or many at once, so plain operations compute them. The arguments are
        # replaced by views, so that a path from one argument to another is not counted here as well.
        with torch.enable_grad():
            views = [None if tensor is None else tensor.view_as(tensor) for tensor in arguments]
            results = kernel.reference(*views)
            wanted = [view for view, need in zip(views, needs, strict=True) if need]
            used = [(result, grad) for result, grad in zip(results, grads, strict=True) if grad is not None]
            gradients: Sequence[Tensor] = torch.autograd.grad(
                [result for result, _ in used],
                wanted,  # type: ignore[arg-type]
                [grad for _, grad in used],
                create_graph=torch.is_grad_enabled(),
                allow_unused=True,
                materialize_grads=True,
            )
    elif _traced((*grads, kept)):
        gradients = kernel.operator_backward(list(grads), kept, arguments, list(needs))
    else:
        return tuple(kernel.backward(grads, kept, arguments, needs, ctx.measured))
    found = iter(gradients)
    return tuple(next(found) if need else None for need in needs)


class _Layer(torch.autograd.Function):
    """The node of the graph where operators are not traced.

    It has no `setup_context`: a function with one binds its arguments by their names at each call, which
    takes longer than a small layer's forward pass.
    """

    @staticmethod
    def forward(ctx: Any, kernel: Kernel, *arguments: Tensor | None) -> tuple[Tensor, ...]:
        given = _dense(arguments)
        measured = _sizes(given)
        *results, kept = kernel.run(given, *measured)
        _save(ctx, kernel, arguments, kept)
        ctx.measured = measured if given is arguments else None
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, *_gradients(ctx, ctx.needs_input_grad[1:], grads)


_apply: Callable[..., tuple[Tensor, ...]] = super(torch.autograd.Function, _Layer).apply
"""`_Layer.apply` without the handling of functorch, whose transformations never get here."""
