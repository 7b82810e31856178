"""Copies of a model, such as an average of its weights, whose sizes follow those of the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from diffstruct.errors import StructureError
from diffstruct.width.layout import Axis, Layout, axes
from diffstruct.width.width import Width


@dataclass(frozen=True)
class Copy:
    """A copy of a model that changes with it; `copy_of` makes one.

    Args:
        modules: by module of the model the module of the copy.
        axes: by axis of the copy the axis of the model. Modules may keep layouts, and compute with them;
            the axes in the layouts of a copy are objects of their own.
    """

    modules: Mapping[nn.Module, nn.Module]
    axes: Mapping[Axis, Axis]


def copy_of(model: nn.Module, copy: nn.Module, widths: Iterable[Width]) -> Copy:
    """Pair the modules of a model and of its copy by name, and the axes that their attributes hold by place.

    Args:
        model: the model.
        copy: a deep copy of it, or an `AveragedModel` around one, of the sizes that the model has now.
        widths: those of the model that will change.

    Raises:
        StructureError: it is no copy: a module, a tensor of the same shape or a layout is missing in it, or
            it shares a tensor with the model.
    """
    copy = copy.module if isinstance(copy, AveragedModel) else copy
    theirs = dict(getattr(copy, "_orig_mod", copy).named_modules())  # torch.compile wraps a model
    modules = {module: theirs[name] for name, module in model.named_modules() if name in theirs}
    for width in widths:
        for slot in width.slots:
            twin = getattr(modules.get(slot.module), slot.name, None)
            if not isinstance(twin, Tensor) or twin.shape != slot.tensor.shape or twin is slot.tensor:
                raise _no_copy(f"{slot} of shape {[*slot.tensor.shape]} of its own")
        for attribute in width.attributes:
            if not hasattr(modules.get(attribute.module), attribute.name):
                raise _no_copy(f"attribute {attribute.name!r} of a {type(attribute.module).__name__}")
    return Copy(modules, dict(_axes(modules)))


def with_modules(modules: Mapping[nn.Module, nn.Module]) -> Copy:
    """A copy whose modules are these, some of which have come since it was made."""
    return Copy(modules, dict(_axes(modules)))


def _axes(modules: Mapping[nn.Module, nn.Module]) -> Iterator[tuple[Axis, Axis]]:
    """The axes in the copy's layouts, each with the axis in the same place of the model."""
    for module, twin in modules.items():
        for name, layout in vars(module).items():
            other = getattr(twin, name, None)
            # A plain module of torch.nn in place of one of ours keeps no layout, and needs none.
            if isinstance(layout, Layout) and isinstance(other, Layout):
                ours, theirs = [*axes(layout)], [*axes(other)]
                if [axis.size for axis in ours] != [axis.size for axis in theirs]:
                    raise _no_copy(
                        f"layout {name!r} of a {type(module).__name__} with the sizes of the model's"
                    )
                yield from zip(theirs, ours, strict=True)


def _no_copy(what: str) -> StructureError:
    return StructureError(
        f"what follows must be a copy of the model, of its sizes now, but has no {what}: "
        "copy the model after Structure is made"
    )
