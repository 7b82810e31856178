"""The shapes that a state dict has, beside those of a model."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from diffstruct.errors import StructureError
from diffstruct.width import Axis, Depth, Layout, Width
from diffstruct.width.layout import axes, length
from diffstruct.width.solving import solve

Shapes: TypeAlias = dict[tuple[nn.Module, str], tuple[int, ...]]
"""Wanted shapes, by module and name of its tensor."""


def complete(model: nn.Module, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict, also under the other names of parameters that are shared, which files may leave out."""
    own = model.state_dict(keep_vars=True)
    names = {id(tensor): key for key, tensor in own.items() if key in state_dict}
    others = {key: names[id(tensor)] for key, tensor in own.items() if id(tensor) in names}
    return {**{key: state_dict[name] for key, name in others.items()}, **state_dict}


def wanted_shapes(model: nn.Module, state_dict: Mapping[str, Any]) -> Shapes:
    """The shapes that the model's tensors have in a state dict.

    Raises:
        StructureError: the state dict lacks something or has something else, or a tensor of it cannot be the
            model's at any sizes.
    """
    own = {**model.state_dict(), **unsaved_buffers(model, state_dict)}
    for some, others, what in ((own, state_dict, "it lacks"), (state_dict, own, "the model has no")):
        keys = sorted(str(key) for key in some if key not in others)
        if keys:
            raise unlike(model, f"{what} {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}")
    wanted: Shapes = {}
    shared: dict[int, str] = {}
    for key, module, name, tensor in tensors_of(model):
        if key in own:
            if nn.parameter.is_lazy(tensor):
                raise StructureError(f"{key} has no shape yet: run the model once before it is resized")
            why = _unlikeness(tensor, state_dict[key])
            if why is not None:
                raise unlike(model, f"{key} {why}")
            other = shared.setdefault(id(tensor), key)
            if not _equal(state_dict[key], state_dict[other]):
                raise unlike(model, f"{key} and {other} are one parameter, of which it has two")
            wanted[module, name] = tuple(state_dict[key].shape)
    return wanted


def unsaved_buffers(model: nn.Module, keys: Container[str]) -> dict[str, Tensor]:
    """The buffers among `keys` that the model's own state dict leaves out: who saves them may load them."""
    return {
        key: tensor
        for key, module, name, tensor in tensors_of(model)
        if name in module._non_persistent_buffers_set and key in keys
    }


def _unlikeness(tensor: Tensor, value: Any) -> str | None:
    """Why a value cannot be that of a tensor, whatever its sizes."""
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__} in it"
    if value.ndim != tensor.ndim:
        return f"has shape {[*value.shape]} in it and {[*tensor.shape]} here"
    if value.is_floating_point() != tensor.is_floating_point():
        return f"has dtype {value.dtype} in it and {tensor.dtype} here"
    if value.layout != tensor.layout or (value.is_meta and not tensor.is_meta):
        return f"is in it without values of its own ({value.layout}, {value.device})"
    if value.shape != tensor.shape:
        if 0 in value.shape:
            return f"is empty in it, {[*value.shape]}"
        if value.untyped_storage().nbytes() < value.numel() * value.element_size():
            return f"has shape {[*value.shape]} in it, but fewer entries"
    return None


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one, or have the same entries."""
    if one.shape == other.shape and one.device == other.device and one.data_ptr() == other.data_ptr():
        return True
    return torch.equal(one, other.to(one.device))


def tensors_of(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Every parameter and buffer: its key, the module that owns it and its name there; shared ones again."""
    for path, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield f"{path}.{name}".removeprefix("."), module, name, tensor


def apart(model: nn.Module, wanted: Shapes) -> list[str]:
    """The keys of the model's tensors that have other shapes than wanted."""
    return [
        key
        for key, module, name, tensor in tensors_of(model)
        if wanted.get((module, name), tensor.shape) != tensor.shape
    ]


def refuse_other_shapes(model: nn.Module, wanted: Shapes, why: str) -> None:
    """Refuse a model that has other shapes than wanted, because of `why`."""
    for key, module, name, tensor in tensors_of(model):
        shape = wanted.get((module, name), tensor.shape)
        if shape != tensor.shape:
            raise unlike(model, f"{key} has shape {[*shape]} in it and {[*tensor.shape]} here, {why}")


def unlike(model: nn.Module, why: str) -> StructureError:
    """What to raise where a state dict is not one of this architecture."""
    return StructureError(f"the state dict is not one of this {type(model).__name__} at any sizes: {why}")


def sizes_of_shapes(
    model: nn.Module,
    widths: Mapping[str, Width],
    wanted: Shapes,
    given: Mapping[Axis, int] = MappingProxyType({}),
) -> dict[str, int]:
    """The sizes of all widths, by name, that give the model's tensors the wanted shapes.

    Args:
        model: the model.
        widths: of it, by name.
        wanted: of some of its tensors; what it leaves open stays as it is.
        given: sizes that are settled before, by axis.

    Raises:
        NoSizesError: no sizes do.
        StructureError: several do.
    """
    names = {module: name for name, module in model.named_modules()}
    lengths: list[tuple[str, Layout, int]] = []
    for slot in (slot for width in widths.values() if not isinstance(width, Depth) for slot in width.slots):
        shape = wanted.get((slot.module, slot.name))
        if shape is not None:
            where = f"{names[slot.module]}.{slot.name}[{slot.dim}]".removeprefix(".")
            lengths.append((where, slot.layout, shape[slot.dim]))
    learned = {width.axis for width in widths.values()}
    fixed = {axis: axis.size for _, layout, _ in lengths for axis in axes(layout) if axis not in learned}
    solved = solve(lengths, {**fixed, **given})
    for where, layout, target in lengths:
        if length(layout, solved) != target:
            several = [
                name
                for name, width in widths.items()
                if width.axis in axes(layout) and width.axis not in solved
            ]
            raise StructureError(
                f"{where} has {target} entries, from which alone the sizes of {several} do not follow: give "
                f"some of them, as in sizes={{{several[0]!r}: {widths[several[0]].size}}}"
            )
    return {name: solved.get(width.axis, width.size) for name, width in widths.items()}
