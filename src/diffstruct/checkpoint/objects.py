"""What is saved of an object, and how objects get it back: all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diffstruct.errors import CheckpointError

STATE, TORCH, NUMPY, VALUE = "state_dict", "torch.Generator", "numpy.random.Generator", "value"
"""Kinds of objects. A value is saved itself, and returned."""

_LARGEST = {"pos": 624, "buffer_pos": 4}
"""Places in the memory of NumPy's generators, which it does not check itself."""


def kind_of(item: Any) -> str:
    """Which kind of object this is."""
    if isinstance(item, torch.Generator):
        return TORCH
    if isinstance(item, np.random.Generator):
        return NUMPY
    methods = (getattr(item, name, None) for name in ("state_dict", "load_state_dict"))
    return STATE if all(map(callable, methods)) else VALUE


def state_of(item: Any) -> Any:
    """The state of an object, which may share its memory."""
    match kind_of(item):
        case "state_dict":
            return item.state_dict()
        case "torch.Generator":
            return {"device": item.device.type, "state": item.get_state()}
        case "numpy.random.Generator":
            return item.bit_generator.state
    return item


def _set_state(item: Any, state: Any) -> None:
    match kind_of(item):
        case "state_dict":
            item.load_state_dict(state)
        case "torch.Generator":
            item.set_state(state["state"])
        case "numpy.random.Generator":
            item.bit_generator.state = state


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds under a name."""

    kind: str
    state: Any


def check(objects: Mapping[str, Any], saved: Mapping[str, Saved]) -> None:
    """Refuse objects for which there is nothing in a checkpoint.

    Raises:
        CheckpointError: with what there is in place of it.
    """
    for name, item in objects.items():
        kind = kind_of(item)
        if kind == VALUE:
            raise CheckpointError(
                f"{name} is a {type(item).__name__}, into which nothing can be loaded: leave it out, and "
                f"take it from what load returns, load(...)[{name!r}]"
            )
        if name not in saved:
            raise CheckpointError(f"there is no {name} in the checkpoint: it holds {', '.join(saved)}")
        if kind != saved[name].kind:
            raise CheckpointError(
                f"{name} is a {type(item).__name__}, which needs a {kind}; a {saved[name].kind} was saved"
            )
        if kind in (TORCH, NUMPY):
            _check_generator(name, item, saved[name].state)


def _check_generator(name: str, item: Any, state: Any) -> None:
    """Refuse the state of another kind of generator, and one that points outside of its memory."""
    now = state_of(item)
    which = "device" if isinstance(item, torch.Generator) else "bit_generator"
    if not isinstance(state, dict) or state.get(which) != now[which]:
        raise CheckpointError(
            f"{name} is a generator with the {which} {now[which]}; that which was saved had another"
        )
    inner = state.get("state")
    places = {**state, **(inner if isinstance(inner, dict) else {})}
    for key, largest in _LARGEST.items():
        if key in places and not (type(places[key]) is int and 0 <= places[key] <= largest):
            raise CheckpointError(f"{name} has an impossible state: {key} is {places[key]!r:.40}")


def restore(objects: Mapping[str, Any], saved: Mapping[str, Saved]) -> None:
    """Give objects what was saved of them; if one refuses, all are put back.

    Those with the attribute `loads_first` come first, since they bring others to the sizes that were saved,
    and generators last, since random numbers may be drawn on the way.

    Raises:
        CheckpointError: an object refuses.
    """
    names = sorted(objects, key=lambda name: _turn(objects[name]))
    before = {name: _aside(state_of(objects[name])) for name in names}
    name = ""
    try:
        for name in names:
            _set_state(objects[name], saved[name].state)
    except BaseException as error:
        _put_back(objects, before, error)
        if not isinstance(error, Exception):
            raise  # Ctrl-C is no error of the checkpoint
        raise CheckpointError(
            f"{name} refuses what was saved, and all objects are as before ({type(error).__name__}: {error})"
        ) from error


def _aside(state: Any) -> Any:
    """A copy of a state with its tensors on the CPU, since accelerators have no room for models twice."""
    if type(state) in (torch.Tensor, torch.nn.Parameter):
        return state.detach().to("cpu", copy=True)
    if type(state) in (list, tuple):
        return type(state)(map(_aside, state))
    if isinstance(state, dict):
        aside = copy(state)  # with the versions that modules write beside the entries
        for key, value in state.items():
            aside[key] = _aside(value)  # not by update, which adds in a Counter
        return aside
    return deepcopy(state)


def _turn(item: Any) -> int:
    if getattr(item, "loads_first", False) is True:
        return 0
    return 2 if kind_of(item) in (TORCH, NUMPY) else 1


def _put_back(objects: Mapping[str, Any], before: Mapping[str, Any], cause: BaseException) -> None:
    """Put every object back, in the order of loading: the first may have changed the sizes of the others."""
    stuck = {}
    for name, state in before.items():
        try:
            _set_state(objects[name], state)
        except Exception as error:
            stuck[name] = f"{type(error).__name__}: {error}"
    if stuck:
        raise CheckpointError(
            f"loading failed ({type(cause).__name__}: {cause}), and these could not be put back: {stuck}"
        ) from cause
