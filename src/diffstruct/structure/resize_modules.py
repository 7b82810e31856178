"""Resizing without a run: tensors take the shapes that are wanted, and `torch.nn`'s integers follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from diffstruct.couple.modules import dims_of, in_doubt
from diffstruct.errors import StructureError
from diffstruct.structure.shapes import Shapes, tensors_of, unlike
from diffstruct.surgery import Plan
from diffstruct.surgery.commit import Resized
from diffstruct.width import Attribute, Axis
from diffstruct.width.solving import NoSizesError, solve


def resize_modules(model: nn.Module, wanted: Shapes) -> Callable[[], None]:
    """Give the tensors of a model other shapes, with zeros for entries, and its modules the sizes.

    Returns:
        A function that undoes it.

    Raises:
        StructureError: an integer may have to follow of which nothing is known, or the shapes of a module
            contradict each other; nothing has changed then.
    """
    plan = Plan()
    shapes: dict[int, tuple[int, ...]] = {}
    changed: dict[int, tuple[nn.Module, str, Tensor]] = {}
    for _, module, name, tensor in tensors_of(model):
        shape = shapes.setdefault(id(tensor), wanted.get((module, name), tuple(tensor.shape)))
        if shape != tensor.shape:
            changed[id(tensor)] = module, name, tensor
    old = {
        size
        for key, (_, _, tensor) in changed.items()
        for size, new in zip(tensor.shape, shapes[key], strict=True)
        if size != new
    }
    for path, module in model.named_modules():
        own = (*module._parameters.values(), *module._buffers.values())
        if any(id(each) in changed for each in own):
            plan.attributes += _attributes(model, path, module, shapes)
    doubtful = [*in_doubt(model, old)] if old else []
    if doubtful:
        more = ", ..." if len(doubtful) > 5 else ""
        raise StructureError(
            f"without a run of the model nothing says whether {', '.join(doubtful[:5])}{more} must follow "
            "the shapes of the state dict: give example_inputs"
        )
    plan.tensors += [
        Resized(t, t.detach().new_zeros(shapes[key]), None) for key, (_, _, t) in changed.items()
    ]
    with ExitStack() as undo:
        undo.callback(plan.commit())
        for owner in {owner for owner, _, _ in plan.attributes}:
            if isinstance(owner, nn.RNNBase):  # cuDNN wants its weights in one piece of memory
                owner.flatten_parameters()
        return undo.pop_all().close


def _attributes(
    model: nn.Module, path: str, module: nn.Module, shapes: dict[int, tuple[int, ...]]
) -> Iterator[tuple[nn.Module, str, Any]]:
    """The integers of a module of `torch.nn`, or of a kind of one, at these shapes."""
    axes: dict[tuple[str, int | None], Axis] = {}

    def axis(name: str, index: int | None = None) -> Axis:
        value = getattr(module, name)
        return axes.setdefault((name, index), Axis(value if index is None else value[index]))

    dims = dims_of(module, axis)
    own = {n: t for n, t in (*module._parameters.items(), *module._buffers.items()) if t is not None}
    users = not type(module).__module__.startswith("torch.nn.")  # what else it has is what the user wrote
    if dims is None and users:
        return
    known = dims is not None and (users or own.keys() <= dims.keys())
    if dims is None or not known or nn.utils.parametrize.is_parametrized(module):
        raise StructureError(
            f"how the integers of {path} ({type(module).__name__}) follow the shapes of its tensors is known "
            "only from a run of the model: give example_inputs"
        )
    lengths = [
        (f"{path}.{name}[{dim}]", layout, shapes[id(tensor)][dim])
        for name, tensor in own.items()
        for dim, layout in enumerate(dims.get(name, ()))
    ]
    try:
        sizes = solve(lengths, {})
    except NoSizesError as error:
        raise unlike(model, str(error)) from error
    values: dict[str, Any] = {}
    for (name, index), each in axes.items():
        now = values.get(name, getattr(module, name))
        values[name] = Attribute(module, name, each, index).changed(now, sizes)
    yield from ((module, name, value) for name, value in values.items())
