"""The products that a run of a model is made of: which sizes each of them multiplies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from diffstruct.couple.call import name_of
from diffstruct.couple.registry import expand
from diffstruct.couple.unfused import unfused
from diffstruct.errors import StructureError
from diffstruct.interrupts import allowed

Sizes: TypeAlias = tuple[int, ...]
"""What one product takes: its multiply-adds are the product of these."""


def products_of(run: Callable[[], Any]) -> list[Sizes]:
    """The matrix products and convolutions of a run, in order, those of fused kernels among them.

    Raises:
        StructureError: an operator multiplies in a way that is not known here.
    """
    return [sizes for sizes, _ in placed_products_of(run, {})]


def placed_products_of(
    run: Callable[[], Any], blocks: Mapping[nn.Module, str]
) -> list[tuple[Sizes, str | None]]:
    """The same, each with what is said of the block in which it is made; None if it is in none.

    Args:
        run: runs the model.
        blocks: some of its modules, none within another.
    """
    counting = Counting()
    with ExitStack() as stack:
        for module, what in blocks.items():
            enter, leave = _marks(counting, what)
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        stack.enter_context(unfused())
        stack.enter_context(counting)
        with allowed():
            run()
    if counting.unknown:
        raise StructureError(
            f"how many multiply-adds {', '.join(counting.unknown)} takes is not known: give the cost as a "
            "function of the sizes, TaylorImportance(cost=)"
        )
    return [*zip(counting.products, counting.places, strict=True)]


def _marks(counting: Counting, what: str) -> tuple[Callable[..., None], Callable[..., None]]:
    def enter(*_: Any) -> None:
        counting.inside = what

    def leave(*_: Any) -> None:
        counting.inside = None

    return enter, leave


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The mode under which the model runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: list[Sizes] = []
        self.places: list[str | None] = []
        """Of each product what is said of the block in which it is made."""
        self.inside: str | None = None
        self.unknown: dict[str, None] = {}
        """The operators that PyTorch counts and we do not; raised as an error after the run, since models
        may catch what is raised within."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        known = PRODUCTS.get(name.removesuffix("_")) if func.namespace == "aten" else None
        if known is None:
            simpler = expand(func)
            if simpler is not None:
                before = len(self.products)
                try:
                    with self:
                        result = simpler(*args, **kwargs)
                    if result is not NotImplemented:
                        return result
                except Exception:  # if it is the model's, `func` raises it again
                    del self.products[before:], self.places[before:]
            if func._overloadpacket in flop_registry:
                self.unknown[name] = None
        result = func(*args, **kwargs)
        if known is not None:
            self.products += known(args, result)
            self.places += [self.inside] * (len(self.products) - len(self.places))
        return result


def _matrices(args: Sequence[Any], result: Tensor) -> list[Sizes]:
    """`[..., i, k]` times `[..., k, j]`, or of fewer dimensions: every entry of the result sums over `k`."""
    return [(*result.shape, args[0].shape[-1])]


def _matrices_added(args: Sequence[Any], result: Tensor) -> list[Sizes]:
    return [(*result.shape, args[1].shape[-1])]


def _convolution(args: Sequence[Any], result: Tensor) -> list[Sizes]:
    x, weight, transposed = args[0], args[1], args[6]
    return [_convolved(x if transposed else result, weight)]


def _convolution_backward(args: Sequence[Any], result: Any) -> list[Sizes]:
    """As in a model that returns forces: the gradients of input and weight take as much as the forward."""
    gradient, x, weight, transposed, wanted = args[0], args[1], args[2], args[7], args[10]
    return [_convolved(x if transposed else gradient, weight)] * sum(wanted[:2])


def _convolved(positions: Tensor, weight: Tensor) -> Sizes:
    """At each position of each example, every entry of the weight multiplies once."""
    return (positions.shape[0], *positions.shape[2:], *weight.shape)


def _trilinear(args: Sequence[Any], result: Any) -> list[Sizes]:
    """The product of three that `bilinear` is made of: over all sizes that any of them has."""
    sizes: list[int] = []
    for tensor, added in zip(args[:3], args[3:6], strict=True):
        own = [*tensor.shape]
        for index in sorted(added):
            own.insert(index, 1)
        sizes = [*map(max, sizes, own)] if sizes else own
    return [tuple(sizes)]


def _attention(args: Sequence[Any], result: Any) -> list[Sizes]:
    """Queries `[B, heads, T, d]` against keys `[B, heads, S, d]`, and that times values."""
    query, key, value = args[:3]
    both = (*query.shape[:3], key.shape[2])
    return [(*both, query.shape[3]), (*both, value.shape[3])]


def _recurrent(args: Sequence[Any], result: Any) -> list[Sizes]:
    """Layers that a GPU's library runs as one: at each position each weight matrix multiplies once."""
    return [(*args[0].shape[:-1], *weight.shape) for weight in args[1] if weight.ndim == 2]


PRODUCTS: dict[str, Callable[[Sequence[Any], Any], list[Sizes]]] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot"), _matrices),
    **dict.fromkeys(("addmm", "addmv", "baddbmm"), _matrices_added),
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), _convolution),
    "convolution_backward": _convolution_backward,
    "_trilinear": _trilinear,
    **dict.fromkeys(("_cudnn_rnn", "miopen_rnn"), _recurrent),
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
        ),
        _attention,
    ),
}
"""What each operator multiplies, by its name: of its arguments and what it returned."""
