"""What a case of the zoo is, and a short way to write one down.

Places are written `name[dim]`, with the name that `named_parameters` or `named_buffers` gives (a tied
parameter goes by its first name). In texts of places, separated by spaces, braces multiply, as in a shell:
`conv.{weight,bias}[0]`; `{wb}` and `{bn}` stand for the usual members, see `SHORT`.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

SHORT = {"wb": "weight,bias", "bn": "weight,bias,running_mean,running_var"}


@dataclass(frozen=True)
class Case:
    """An architecture, and the widths that are to be found in it.

    Args:
        name: unique in the zoo.
        build: the model; `torch.manual_seed` decides its weights.
        inputs: example positional inputs, always the same ones.
        learned: for each width that must be found, every place that changes with it. Two widths can have the
            same places: a head more, or one feature more in every head.
        fixed: a place that must stay fixed, and a word that the reason must contain; any reason will do
            where the word is empty.
        allowed: widths that may be found as well: the output does not see their silent units, but a finder
            that leaves them fixed loses little.
        units: how many units each of `learned` has in what `build` gives, and after them those of `allowed`;
            empty where it was not noted.
        complete: whether `learned` and `allowed` list all that may be found, but for widths of one unit, such
            as the single group of `GroupNorm(1, 10)` or the one input of a group of a depthwise convolution.
        exports: whether `torch.export` can export the model with these inputs.
        rebuild: the user's class at other sizes, given {index into `learned`, then `allowed`: units}. It
            computes the same function of its state: a grown model's can be loaded, and outputs compared.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    learned: tuple[frozenset[str], ...]
    fixed: Mapping[str, str] = field(default_factory=dict)
    allowed: tuple[frozenset[str], ...] = ()
    units: tuple[int, ...] = ()
    complete: bool = True
    exports: bool = True
    rebuild: Callable[[Mapping[int, int]], nn.Module] | None = None


def places(text: str) -> frozenset[str]:
    """The places that a text with braces stands for."""
    found, todo = [], text.split()
    while todo:
        word = todo.pop()
        brace = re.search(r"\{([^{}]*)\}", word)
        if brace is None:
            found.append(word)
            continue
        options = SHORT.get(brace[1], brace[1]).split(",")
        todo += [word[: brace.start()] + option + word[brace.end() :] for option in options]
    if len(found) != len(set(found)):
        raise ValueError(f"a place is written twice in {text!r}")
    return frozenset(found)


def case(
    name: str,
    make: Callable[..., nn.Module],
    inputs: Callable[[], tuple[Any, ...]],
    learned: Mapping[str, str] | None = None,
    *,
    fixed: Mapping[str, str] | None = None,
    allowed: Mapping[str, str] | None = None,
    complete: bool = True,
    exports: bool = True,
) -> Case:
    """A case from texts of places.

    `learned` and `allowed` map arguments of `make` to texts of places: each such argument says how many units
    that width has, and its default how many it has in the zoo. `make` can build other sizes if every width
    has its argument, so that `rebuild` comes for free. `fixed` maps texts of places to words.
    """
    widths = {**(learned or {}), **(allowed or {})}
    arguments = inspect.signature(make).parameters
    sizable = bool(widths) and all(width in arguments for width in widths)

    def rebuild(units: Mapping[int, int]) -> nn.Module:
        return make(**{[*widths][index]: size for index, size in units.items()})

    return Case(
        name=name,
        build=make,
        inputs=inputs,
        learned=tuple(places(text) for text in (learned or {}).values()),
        fixed={place: word for text, word in (fixed or {}).items() for place in places(text)},
        allowed=tuple(places(text) for text in (allowed or {}).values()),
        units=tuple(arguments[width].default for width in widths) if sizable else (),
        complete=complete,
        exports=exports,
        rebuild=rebuild if sizable else None,
    )


@dataclass(frozen=True)
class Ids:
    """Token ids below `high`."""

    high: int
    shape: tuple[int, ...]


def ids(high: int, *shape: int) -> Ids:
    """Token ids below `high`, as an input for `given`."""
    return Ids(high, shape)


def given(*inputs: tuple[int, ...] | Ids) -> Callable[[], tuple[Tensor, ...]]:
    """Example inputs: normal float32 tensors of the given shapes, or token ids."""

    def draw() -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        return tuple(
            torch.randint(each.high, each.shape, generator=generator)
            if isinstance(each, Ids)
            else torch.randn(each, generator=generator)
            for each in inputs
        )

    return draw
