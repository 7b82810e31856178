"""Building a model's class anew from its configuration, without memory, to see which sizes that gives."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from diffstruct.couple.attributes import HINT, integers
from diffstruct.nn.undisturbed import undisturbed
from diffstruct.structure.shapes import tensors_of

ABSENT: Any = object()
"""The value of what a configuration does not have."""


class Key(NamedTuple):
    """An integer of a configuration, or one that is left open or could be there.

    Args:
        path: the attributes that lead to the object that has it; empty for the configuration itself.
        name: its name.
        position: which entry of the attribute, if that is a tuple or list.
    """

    path: tuple[str, ...]
    name: str
    position: int | None = None

    def of(self, config: object) -> Any:
        """Its value in a configuration, `ABSENT` if there is none."""
        value = getattr(self._holder(config), self.name, ABSENT)
        return value if self.position is None else value[self.position]

    def put(self, config: object, value: Any) -> None:
        """Give it another value in a configuration, or take it away again."""
        holder = self._holder(config)
        if value is ABSENT:
            delattr(holder, self.name)
            return
        if self.position is not None:
            old = getattr(holder, self.name)
            entries = [*old]
            entries[self.position] = value
            value = type(old)(entries)
        setattr(holder, self.name, value)

    def _holder(self, config: object) -> object:
        for name in self.path:
            config = getattr(config, name)
        return config

    def __str__(self) -> str:
        return ".".join((*self.path, self.name)) + ("" if self.position is None else f"[{self.position}]")


def keys_of(config: object, path: tuple[str, ...] = ()) -> Iterator[tuple[Key, int | None]]:
    """The integers of a configuration, and of those inside of it; and what is None and named as a size is."""
    for name, index, value in integers(config):
        yield Key(path, name, index), value
    for name, value in vars(config).items():
        if name.startswith("_"):
            continue
        if value is None and HINT.search(name.lower()):
            yield Key(path, name), None
        elif len(path) < 3 and is_configuration(value):
            yield from keys_of(value, (*path, name))


def absent_keys(model: nn.Module) -> Iterator[tuple[Key, int]]:
    """Integers that the model's modules keep and its configuration could have, but has not.

    Such as `head_dim`, for which many a constructor looks there before it divides.
    """
    values: dict[str, set[int]] = {}
    for module in model.modules():
        if not type(module).__module__.startswith("torch.nn."):
            for name, position, value in integers(module):
                if position is None and HINT.search(name.lower()) and not hasattr(model.config, name):
                    values.setdefault(name, set()).add(value)
    for name, several in values.items():
        if len(several) == 1:
            yield Key((), name), several.pop()


def is_configuration(value: object) -> bool:
    """Whether an object can be a configuration: one with attributes, and none of PyTorch's own kinds."""
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, (nn.Module, Tensor, type))
        and not callable(value)
    )


Entry: TypeAlias = tuple[str, str, int | None]
"""A dimension of a tensor, or an attribute of a module: the owner's name in the model, its own, which."""


class Sketch(NamedTuple):
    """What there is in a model to compare.

    Args:
        sizes: of the dimensions of all tensors, and the integers of modules that hold sizes.
        integers: that its modules keep besides, such as those that nothing reads.
        floats: that its modules keep besides, such as the scale of attention.
        fleeting: the dimensions of buffers that state dicts do not hold, and that are computed anew.
    """

    sizes: Mapping[Entry, Any]
    integers: Mapping[Entry, int]
    floats: Mapping[Entry, float]
    fleeting: Mapping[Entry, int]


def sketch(model: nn.Module, held: Collection[Entry]) -> Sketch:
    """The sizes of a model, with the attributes of its modules that `held` names among them."""
    sizes: dict[Entry, Any] = {}
    whole: dict[Entry, int] = {}
    floats: dict[Entry, float] = {}
    fleeting: dict[Entry, int] = {}
    modules = dict(model.named_modules())
    paths = {module: path for path, module in modules.items()}
    for _, module, name, tensor in tensors_of(model):
        kept = fleeting if name in module._non_persistent_buffers_set else sizes
        kept.update({(paths[module], name, dim): size for dim, size in enumerate(tensor.shape)})
        kept[paths[module], name, None] = tensor.ndim
    for path, module in modules.items():
        floats.update({(path, name, None): v for name, v in vars(module).items() if isinstance(v, float)})
        whole.update({(path, name, index): value for name, index, value in integers(module)})
    for path, name, index in held:
        value = getattr(modules.get(path), name, None)
        sizes[path, name, index] = value if index is None or value is None else value[index]
        whole.pop((path, name, index), None)
    return Sketch(sizes, whole, floats, fleeting)


class _Empty(TorchFunctionMode):
    """Leaves out drawing random numbers, which nobody looks at."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "trunc_normal_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class Rebuilder:
    """Builds the class of a model from changed copies of its configuration.

    Args:
        model: whose class takes the configuration as its only argument.
        held: the attributes of its modules that hold sizes.
    """

    def __init__(self, model: nn.Module, held: Collection[Entry]) -> None:
        self.model, self._held = model, held
        self.config: Any = None
        """The configuration as it was; None if it cannot be copied."""
        with suppress(Exception):  # whatever is in it that cannot
            self.config = copy.deepcopy(model.config)
        self._reloads = self._reloaded(copy.deepcopy(self.config)) is not None

    def model_of(self, values: Mapping[Key, int]) -> nn.Module | None:
        """What the class comes to with other values in its configuration; None if it does not take them."""
        if self.config is None:
            return None
        try:
            config = copy.deepcopy(self.config)
            for key, value in values.items():
                key.put(config, value)
            if self._reloads:
                again = self._reloaded(config)
                if again is None or any(key.of(again) != value for key, value in values.items()):
                    return None
            with undisturbed(self.model), torch.device("meta"), _Empty():
                return type(self.model)(config)
        except Exception:  # whatever the user's class raises where it does not take these values
            return None

    def sketch_of(self, values: Mapping[Key, int]) -> Sketch | None:
        """The sizes that the class comes to."""
        built = self.model_of(values)
        return None if built is None else sketch(built, self._held)

    def _reloaded(self, config: Any) -> object | None:
        """The configuration as it is when it has been saved and loaded; None if it cannot be."""
        try:
            again: object = type(config).from_dict(config.to_dict())
        except Exception:  # most have no such methods; those that have check values in them
            return None
        return again
