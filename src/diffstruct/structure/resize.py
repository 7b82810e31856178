"""Giving a freshly built model the sizes of a state dict: `resize_to`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diffstruct.couple import FoundWidths, ProofError, find_widths
from diffstruct.couple.declared import DeclaresWidth
from diffstruct.distributed import following, unwrapped
from diffstruct.errors import ConfigurationError, StructureError
from diffstruct.interrupts import uninterrupted
from diffstruct.structure.finish import write_eps
from diffstruct.structure.resize_depths import resize_depths
from diffstruct.structure.resize_modules import resize_modules
from diffstruct.structure.shapes import (
    Shapes,
    apart,
    complete,
    refuse_other_shapes,
    sizes_of_shapes,
    unlike,
    unsaved_buffers,
    wanted_shapes,
)
from diffstruct.surgery import Change, operate
from diffstruct.width import Axis
from diffstruct.width.patterns import by_name
from diffstruct.width.solving import NoSizesError


@uninterrupted
def resize_to(
    model: nn.Module,
    state_dict: Mapping[str, Any],
    example_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
) -> nn.Module:
    """Give a freshly built model the sizes of a state dict of the same architecture, and load it.

    Parameters stay the same objects, and shared ones shared; optimizers are to be made afterwards. Where the
    state dict has more or fewer residual blocks, which takes example inputs, blocks leave and enter.

    With example inputs the widths are found and proved as by `find_widths`, and all integers that hold a size
    follow, those of the model's own code too. Without them, those of `torch.nn`'s modules follow, and a model
    with others that may have to is refused; a size that stands in the code of `forward` is not seen then.

    Args:
        model: of the sizes that its code or configuration says.
        state_dict: all of what `model.state_dict()` gave after `Structure.finish`; also with buffers that it
            leaves out, `model.state_dict() | dict(model.named_buffers())`, as those of rotary embeddings.
        example_inputs: as for `find_widths`.
        sizes: units of some widths, by patterns of their names, where shapes do not tell: 24 rows may be 6
            heads of 4 features or 4 of 6. Where no shape has changed, no size is taken to have.

    Returns:
        The model.

    Raises:
        StructureError: the state dict is not one of this architecture, or has a size that no number of units
            gives, or that several numbers do; without example inputs, an integer may have to follow of which
            nothing is known, or blocks would have to come or go; which blocks these are, nothing says. The
            model is as it was then.
        ConfigurationError: `sizes` has a pattern that matches no width, or a size below 1.

    Example:
        >>> import torch
        >>> import diffstruct as ds
        >>> def build(units=8):
        ...     layers = torch.nn.Linear(3, units), torch.nn.ReLU(), torch.nn.Linear(units, 1)
        ...     return torch.nn.Sequential(*layers)
        >>> learned = build(units=5).state_dict()
        >>> model = ds.resize_to(build(), learned)
        >>> model[0].out_features, model[2].in_features
        (5, 5)
    """
    if not isinstance(state_dict, Mapping):
        raise StructureError(f"a {type(state_dict).__name__} is no state dict: give model.state_dict()")
    whole, _ = unwrapped(model)
    with following(whole), ExitStack() as undo:  # what to do if anything fails
        undo.callback(resize_depths(whole, state_dict, example_inputs))
        state_dict = complete(whole, state_dict)
        wanted = wanted_shapes(whole, state_dict)
        declares = any(isinstance(module, DeclaresWidth) for module in whole.modules())
        if example_inputs is None and not declares:
            if sizes:
                raise ConfigurationError("sizes are those of widths, which are found with example_inputs")
            undo.callback(resize_modules(whole, wanted))
        elif sizes or apart(whole, wanted):
            found = find_widths(whole, example_inputs)
            undo.callback(operate(_changes(found, wanted, sizes or {})))
            write_eps(found.widths.values())
            refuse_other_shapes(whole, wanted, f"which no width explains:\n{found.explain()}")
            _check_runs(found)
        _load(whole, state_dict, undo)
        undo.pop_all()
    return model


def _changes(found: FoundWidths, wanted: Shapes, sizes: Mapping[str, int]) -> list[Change]:
    """What gives the widths the sizes that the wanted shapes say."""
    try:
        solved = sizes_of_shapes(found.model, found.widths, wanted, _given(found, sizes))
    except NoSizesError as error:
        raise unlike(found.model, str(error)) from error
    changes = []
    for name, width in found.widths.items():
        size = solved[name]
        if size != width.size:
            for slot in width.slots:
                if (slot.module, slot.name) not in wanted:
                    raise StructureError(
                        f"width {width.name!r} lies in {slot}, a buffer that state dicts do not hold, so "
                        "that its entries are not known at another size: save it as well, with "
                        "model.state_dict() | dict(model.named_buffers())"
                    )
            changes.append(Change(width, tuple(range(min(size, width.size))), max(0, size - width.size)))
    return changes


def _given(found: FoundWidths, sizes: Mapping[str, int]) -> dict[Axis, int]:
    for pattern, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigurationError(f"sizes has {size!r} for {pattern!r}: give units, 1 at least")
    by_width = by_name(dict(sizes), found.widths, 0, "sizes")
    return {found.widths[name].axis: size for name, size in by_width.items() if size}


def _check_runs(found: FoundWidths) -> None:
    if found.proof is not None:
        try:
            found.proof.outputs()
        except ProofError as error:
            raise StructureError(f"at the sizes of the state dict, {error}") from error


def _load(model: nn.Module, state_dict: Mapping[str, Any], undo: ExitStack) -> None:
    """Load the state dict; if that fails, which then is due to modules' own code, `undo` knows."""
    backup = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    undo.callback(partial(_restore, backup))
    unsaved = unsaved_buffers(model, state_dict)
    try:
        model.load_state_dict({k: v for k, v in state_dict.items() if k not in unsaved}, strict=True)
    except Exception as error:
        raise unlike(model, str(error)) from error
    with torch.no_grad():
        for key, buffer in unsaved.items():
            buffer.copy_(state_dict[key])


@torch.no_grad()
def _restore(backup: Sequence[tuple[Tensor, Tensor]]) -> None:
    for tensor, value in backup:
        tensor.copy_(value)
