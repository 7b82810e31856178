"""What happens to a model that a structure watches when a state dict is loaded into the model alone."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from diffstruct.distributed import is_sharded
from diffstruct.errors import StructureError
from diffstruct.rule import RuleState
from diffstruct.structure.arranging import arrangement
from diffstruct.structure.changing import ChangingStructure
from diffstruct.structure.loading import arrange, resizing
from diffstruct.structure.retreat import remember_values
from diffstruct.structure.shapes import Shapes, apart, sizes_of_shapes, tensors_of, unlike
from diffstruct.surgery.planning import leave_zero
from diffstruct.width import Depth
from diffstruct.width.cost import sizes_of
from diffstruct.width.solving import NoSizesError


class _LoadHook:
    """Something that a structure does when its model is loaded. Copies of the model do nothing.

    Args:
        owner: the structure, which the model must not keep alive; None for nothing.
    """

    def __init__(self, owner: ChangingStructure | None) -> None:
        self._owner = None if owner is None else weakref.ref(owner)

    @property
    def owner(self) -> ChangingStructure | None:
        """The structure, while it is there."""
        return None if self._owner is None else self._owner()

    @property
    def idle(self) -> bool:
        """Whether this is the hook of a copy."""
        return self._owner is None

    def __reduce__(self) -> tuple[type[_LoadHook], tuple[None]]:
        return type(self), (None,)


class _Resizes(_LoadHook):
    """Gives the model the sizes of a state dict right before it is loaded."""

    def __call__(self, module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        if self.owner is not None:
            follow_load(self.owner, state_dict, prefix)


class _Remembers(_LoadHook):
    """Has the guard remember what buffers were loaded, in the place of what they were before."""

    def __call__(self, module: nn.Module, incompatible: Any) -> None:
        if self.owner is not None:
            self.owner.guard.renew()


def watch_loads(structure: ChangingStructure) -> list[RemovableHandle]:
    """Let the model of a structure take on the sizes of the state dicts that are loaded into it."""
    model = structure.model
    every: list[dict[int, Any]] = [model._load_state_dict_pre_hooks, model._load_state_dict_post_hooks]
    for hooks in every:  # what has come with a copy of another model does nothing
        for key, each in [*hooks.items()]:
            hook = _hook_of(each)
            if isinstance(hook, _LoadHook) and hook.idle:
                del hooks[key]
    before: Callable[[Any], RemovableHandle] = model.register_load_state_dict_pre_hook
    after: Callable[[Any], RemovableHandle] = model.register_load_state_dict_post_hook
    return [before(_Resizes(structure)), after(_Remembers(structure))]


def _hook_of(registered: Any) -> Any:
    return getattr(registered, "hook", registered)


def follow_load(structure: ChangingStructure, state_dict: Mapping[str, Any], prefix: str) -> None:
    """Bring the model to the sizes of its own state dict; the units are then judged as if they were new.

    Where sizes change, the values are loaded with them, so that Ctrl-C between this and PyTorch's own
    loading, which comes next, does not meet a model whose weights belong to no state.

    Raises:
        StructureError: it has no such sizes, or they do not follow from the shapes alone.
    """
    structure.guard.forget()  # buffers are about to be others
    processes, what = structure.training.processes, "taking on the sizes of the model's state dict"
    with structure._all_or_nothing() as undo:
        with processes.alike(what):
            changed: list[bool] = []
            depths = [width for width in structure.widths.values() if isinstance(width, Depth)]
            if _is_whole(structure.model, depths, state_dict, prefix):  # else blocks that it lacks are there
                changed = [_follow_blocks(structure, depth, state_dict, prefix, undo) for depth in depths]
            sizes = _sizes_of(structure, state_dict, prefix)
        if processes.sharding is not None:
            processes.agree(sizes, "the sizes of the state dicts that they load into their models")
        if sizes or any(changed):
            with processes.alike(what):
                if sizes:
                    structure._operate(resizing(structure, sizes), leave_zero, 0, undo=undo)
                for name, size in sizes.items():
                    structure.states[name] = RuleState.initial(size)
                _load_values(structure.model, state_dict, prefix, undo)
        structure._loads += 1


def _sizes_of(structure: ChangingStructure, state_dict: Mapping[str, Any], prefix: str) -> dict[str, int]:
    """The sizes of the widths that have others in a state dict, by name."""
    model = structure.model
    wanted: Shapes = {}
    for key, module, name, tensor in tensors_of(model):
        value = state_dict.get(prefix + key)
        if isinstance(value, Tensor) and value.ndim == tensor.ndim:
            wanted[module, name] = tuple(value.shape)
    if not apart(model, wanted):
        return {}
    try:
        sizes = sizes_of_shapes(model, structure.widths, wanted)
    except NoSizesError as error:
        raise unlike(model, str(error)) from error
    own = sizes_of(structure.widths.values())
    return {name: size for name, size in sizes.items() if size != own[name]}


def _is_whole(model: nn.Module, depths: Sequence[Depth], state_dict: Mapping[str, Any], prefix: str) -> bool:
    """Whether a state dict has all of a model but blocks; weights that are tied may be there once."""
    names = {module: path for path, module in model.named_modules()}
    blocks = tuple(f"{names[depth.stack.container]}." for depth in depths)
    rest = {
        key: id(each) for key, each in model.state_dict(keep_vars=True).items() if not key.startswith(blocks)
    }
    return {*rest.values()} == {each for key, each in rest.items() if prefix + key in state_dict}


def _follow_blocks(
    structure: ChangingStructure, depth: Depth, state_dict: Mapping[str, Any], prefix: str, undo: ExitStack
) -> bool:
    """Let blocks leave or enter until there are as many as in a state dict; whether any did."""
    names = {module: path for path, module in structure.model.named_modules()}
    begin = f"{prefix}{names[depth.stack.container]}."
    there = {key[len(begin) :].split(".")[0] for key in state_dict if key.startswith(begin)}
    now = arrangement(depth)
    if not there or len(there) == len(now):
        return False
    if {*now} != {0}:
        raise StructureError(
            f"the state dict has {len(there)} blocks of {depth.name!r}, the model {len(now)}, which are not "
            "all alike: load the structure's state dict first, then the model's"
        )
    arrange(structure, depth, [0] * len(there), undo)
    return True


@torch.no_grad()
def _load_values(model: nn.Module, state_dict: Mapping[str, Any], prefix: str, undo: ExitStack) -> None:
    """Load what PyTorch would load as it is; what modules' own code loads is left to it."""
    if any(not isinstance(_hook_of(each), _LoadHook) for each in model._load_state_dict_pre_hooks.values()):
        return
    undo.callback(remember_values(tensor for _, _, _, tensor in tensors_of(model)))
    for key, module, _, tensor in tensors_of(model):
        value, loads = state_dict.get(prefix + key), type(module)._load_from_state_dict
        own = module is not model and bool(module._load_state_dict_pre_hooks)
        if own or not loads.__module__.startswith("torch.nn.") or not isinstance(value, Tensor):
            continue
        if value.shape == tensor.shape and is_sharded(value) == is_sharded(tensor) and not value.is_meta:
            tensor.copy_(value)
