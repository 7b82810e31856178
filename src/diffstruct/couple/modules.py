"""What `torch.nn`'s modules say of their own tensors: which integer is the length of which dimension.

Enough to give a module other sizes without running the model, where no other integer holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch
from typing import Protocol, TypeAlias

from torch import Tensor, nn

from diffstruct.couple.attributes import HINT, integers
from diffstruct.width.layout import Axis, Fixed, Layout, Product


class Size(Protocol):
    """Gives the axis whose size an attribute of a module holds."""

    def __call__(self, name: str, index: int | None = None) -> Axis:
        """The axis, by the attribute's name and, if that is a tuple, the entry."""
        ...


Dims: TypeAlias = dict[str, tuple[Layout, ...]]
"""By name of a tensor of the module the layouts of its dimensions."""


@singledispatch
def dims_of(module: nn.Module, size: Size) -> Dims | None:
    """The dimensions of a module's own tensors, which may be missing; None if its kind is not known."""
    return None


@dims_of.register
def _(module: nn.Linear, size: Size) -> Dims:
    return {"weight": (size("out_features"), size("in_features")), "bias": (size("out_features"),)}


@dims_of.register
def _(module: nn.Bilinear, size: Size) -> Dims:
    inputs = size("in1_features"), size("in2_features")
    return {"weight": (size("out_features"), *inputs), "bias": (size("out_features"),)}


@dims_of.register(nn.Embedding)
@dims_of.register(nn.EmbeddingBag)
def _(module: nn.Embedding | nn.EmbeddingBag, size: Size) -> Dims:
    return {"weight": (Fixed(module.num_embeddings), size("embedding_dim"))}


@dims_of.register
def _(module: nn.PReLU, size: Size) -> Dims:
    return {"weight": (size("num_parameters"),)}


@dims_of.register
def _(module: nn.modules.batchnorm._NormBase, size: Size) -> Dims:
    names = ("weight", "bias", "running_mean", "running_var")
    return {"num_batches_tracked": (), **dict.fromkeys(names, (size("num_features"),))}


@dims_of.register(nn.LayerNorm)
@dims_of.register(nn.RMSNorm)
def _(module: nn.LayerNorm | nn.RMSNorm, size: Size) -> Dims:
    dims = tuple(size("normalized_shape", index) for index in range(len(module.normalized_shape)))
    return {"weight": dims, "bias": dims}


@dims_of.register
def _(module: nn.modules.conv._ConvNd, size: Size) -> Dims | None:
    if module.groups > 1:  # whether there are more groups, or larger ones, their weights do not say
        return None
    channels = size("out_channels"), size("in_channels")
    kernel = [Fixed(size) for size in module.kernel_size]
    weight: tuple[Layout, ...] = (*(channels[::-1] if module.transposed else channels), *kernel)
    return {"weight": weight, "bias": (size("out_channels"),)}


@dims_of.register
def _(module: nn.RNNBase, size: Size) -> Dims | None:
    if module.proj_size:
        return None
    hidden, directions = size("hidden_size"), 2 if module.bidirectional else 1
    rows: Layout = Product((Fixed({"LSTM": 4, "GRU": 3}.get(module.mode, 1)), hidden))
    dims: Dims = {}
    for layer in range(module.num_layers):
        columns: Layout = Product((Fixed(directions), hidden)) if layer else size("input_size")
        for end in (f"_l{layer}", f"_l{layer}_reverse")[:directions]:
            dims |= {f"weight_ih{end}": (rows, columns), f"weight_hh{end}": (rows, hidden)}
            dims |= {f"bias_ih{end}": (rows,), f"bias_hh{end}": (rows,)}
    return dims


@dims_of.register
def _(module: nn.RNNCellBase, size: Size) -> Dims:
    hidden = size("hidden_size")
    rows: Layout = Product((Fixed(module.weight_hh.shape[0] // module.hidden_size), hidden))
    weights: Dims = {"weight_ih": (rows, size("input_size")), "weight_hh": (rows, hidden)}
    return {**weights, "bias_ih": (rows,), "bias_hh": (rows,)}


_SIZES_OF_OTHERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.MultiheadAttention: ("embed_dim", "kdim", "vdim", "num_heads", "head_dim"),
    nn.AdaptiveLogSoftmaxWithLoss: ("in_features",),
    nn.Unflatten: ("unflattened_size",),
    nn.GroupNorm: ("num_channels", "num_groups"),
    nn.modules.conv._ConvNd: ("in_channels", "groups"),
}
"""The integers of `torch.nn`'s modules that are sizes of more than their own tensors."""


def in_doubt(model: nn.Module, sizes: set[int]) -> Iterator[str]:
    """The integers that may have to follow if dimensions of some `sizes` change, for all that is known.

    They are those of modules that `dims_of` does not know, and of what these keep as their configuration,
    that are equal to one of the sizes or, as counts of heads are, divide one and are named as if they did.

    Args:
        model: the model.
        sizes: of the dimensions that change, before the change.

    Yields:
        Where each is, and its value.
    """
    for path, module in model.named_modules():
        names = _unsettled(module)
        for where, holder in _holders(path or type(module).__name__, module, names):
            for name, _, value in integers(holder):
                divides = value > 1 and HINT.search(name.lower()) and any(size % value == 0 for size in sizes)
                if (value in sizes or divides) and (holder is not module or name in names):
                    yield f"{where}.{name} = {value}"


def _unsettled(module: nn.Module) -> set[str]:
    """The attributes of a module that may hold sizes of which its own tensors say nothing."""
    settled: set[str] = set()

    def size(name: str, index: int | None = None) -> Axis:
        settled.add(name)
        return Axis(1)

    known = dims_of(module, size) is not None
    if not type(module).__module__.startswith("torch.nn."):
        return {*vars(module)} - settled
    if known:
        return set() if {*module._parameters.values(), *module._buffers.values()} - {None} else settled
    return {name for kind, names in _SIZES_OF_OTHERS.items() if isinstance(module, kind) for name in names}


def _holders(path: str, module: nn.Module, names: set[str]) -> Iterator[tuple[str, object]]:
    """The module, and the objects among its attributes that may be a configuration."""
    yield path, module
    for name in names:
        value = getattr(module, name, None)
        if hasattr(value, "__dict__") and not isinstance(value, (nn.Module, Tensor, type)):
            yield f"{path}.{name}", value
