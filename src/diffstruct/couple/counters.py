"""The integers that hold the number of blocks, or the place of one: candidates, for the proof to try."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from diffstruct.width.depth import Counter, Index

_COUNTS = re.compile("layer|block|depth|stage")
_PLACES = re.compile("idx|index|layer|block|number|position")
_SIDES = ("encoder", "decoder")


def counters(model: nn.Module, name: str, container: nn.Module, sizes: set[int]) -> list[Counter]:
    """The integers, by whose name and value they hold the number of a container's blocks.

    They are those of the modules around the container, and of the configurations that these have. Where they
    tell the layers of an encoder from those of a decoder, so does this. A list counts that has an entry for
    each child of the container.

    Args:
        model: the model.
        name: of the container in the model.
        container: of the blocks.
        sizes: the numbers that may be meant.
    """
    around = [module for module in model.modules() if any(inner is container for inner in module.modules())]
    found: list[Counter] = []
    known: set[tuple[int, str]] = set()
    for module in around:
        for holder, owner in _owners(module):
            names = [*_integers(owner, sizes), *_lists(owner, len(container._modules))]
            names = [each for each in names if _COUNTS.search(each.lower())]
            for each in _of_this_side(names, name):
                if (id(owner), each) not in known:
                    known.add((id(owner), each))
                    found.append(Counter(module, holder, each))
    return found


def indices(children: Sequence[nn.Module]) -> list[Index]:
    """The integers that hold the place of a block among the children of a container."""
    found = []
    for path, module in children[0].named_modules():
        for name in _integers(module, None):
            if _PLACES.search(name.lower()):
                values = [_value(child, path, name) for child in children]
                places = [value - place for place, value in enumerate(values) if value is not None]
                if None not in values and len({*places}) == 1 and (len(children) > 1 or places == [0]):
                    found.append(Index(path, name, places[0]))
    return found


def _value(child: nn.Module, path: str, name: str) -> int | None:
    module = dict(child.named_modules()).get(path)
    value = getattr(module, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _owners(module: nn.Module) -> Iterator[tuple[str | None, Any]]:
    """What may have integers: a module, and its configurations."""
    yield None, module
    for name, value in vars(module).items():
        if (
            "config" in name.lower()
            and hasattr(value, "__dict__")
            and not isinstance(value, (nn.Module, Tensor))
        ):
            yield name, value


def _integers(owner: Any, sizes: set[int] | None) -> list[str]:
    """The names of the integers of an object, those among `sizes` if given."""
    return [
        name
        for name, value in vars(owner).items()
        if type(value) is int and not name.startswith("_") and (sizes is None or value in sizes)
    ]


def _lists(owner: Any, length: int) -> list[str]:
    """The names of the lists of an object that have so many entries."""
    return [
        name
        for name, value in vars(owner).items()
        if isinstance(value, list) and len(value) == length and not name.startswith("_")
    ]


def _of_this_side(names: Sequence[str], path: str) -> list[str]:
    for side in _SIDES:
        mine = [name for name in names if side in name]
        if mine and side in path:
            return mine
        names = [name for name in names if side not in name]
    return [*names]
