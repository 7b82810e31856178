"""Giving a freshly built model the number of residual blocks that a state dict has."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from difflib import SequenceMatcher
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from diffstruct.couple import FoundDepths, find_depths
from diffstruct.errors import StructureError
from diffstruct.structure.shapes import unlike
from diffstruct.surgery import Birth, Change, change_blocks, newborn
from diffstruct.width import Depth
from diffstruct.width.depth import Block, children_of

Kind: TypeAlias = frozenset[tuple[str, int]]
"""What tells a child of a container from others in a state dict: the names of its tensors, and how many
dimensions each has. Numbers in names do not count, since containers within may be longer or shorter too."""

NOTHING: Kind = frozenset()
"""What a state dict has of a child without tensors."""

MOST = 10_000
"""So many blocks more than the model has are no state dict of it."""


def resize_depths(
    model: nn.Module,
    state_dict: Mapping[str, Any],
    example_inputs: Sequence[Any] | Mapping[str, Any] | None,
) -> Callable[[], None]:
    """Let blocks leave and enter until the containers of a model have as many as a state dict.

    Returns:
        A function that undoes it.

    Raises:
        StructureError: nothing is known of the blocks, for want of example inputs; a child that would have to
            leave, or to be copied, is no block that may; or blocks with the same weights compute different
            things, so that nothing says which of them the state dict has. The model is as it was then.
    """
    differing = _differing(model, state_dict)
    if not differing:
        return lambda: None
    if example_inputs is None:
        raise StructureError(
            f"the state dict has another number of blocks in {', '.join(differing)}, and without a run of "
            "the model nothing says which blocks may come and go: give example_inputs"
        )
    found = find_depths(model, example_inputs)
    plans = [_plan(found, name, steps) for name, steps in differing.items()]
    with ExitStack() as undo:
        for change, births in plans:
            undo.callback(change_blocks(model, change, births))
        return undo.pop_all().close


Steps: TypeAlias = list[tuple[int, int, list[int]]]
"""Where a container's children differ: which of them leave, first and last but one, and for each that enters
there the index of a child of its kind."""


def _differing(model: nn.Module, state_dict: Mapping[str, Any]) -> dict[str, Steps]:
    """The containers whose children are not those that the state dict has, though of the same kinds.

    Those within the children of such a container are not looked at.
    """
    own, found, inside = model.state_dict(), dict[str, Steps](), set[nn.Module]()
    for path, module in model.named_modules():
        if module in inside:
            continue
        names = [*module._modules]
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and names == [*map(str, range(len(names)))]:
            mine, theirs = _kinds(own, path), _kinds(state_dict, path)
            if max(theirs, default=0) > len(names) + MOST:
                continue
            now = [mine.get(index, NOTHING) for index in range(len(names))]
            wanted = [theirs.get(index, NOTHING) for index in range(max(theirs, default=-1) + 1)]
            for kind in reversed(now):  # a state dict does not show children without tensors at the end
                if kind != NOTHING:
                    break
                wanted.append(NOTHING)
            steps = _steps(now, wanted)
            if steps:
                found[path or "model"] = steps
                inside.update(module.modules())
    return found


def _kinds(state_dict: Mapping[str, Any], path: str) -> dict[int, Kind]:
    """By index, the children of a container that have tensors in a state dict."""
    children: dict[int, set[tuple[str, int]]] = {}
    for key, value in state_dict.items():
        inside = re.fullmatch(rf"{re.escape(path + '.') if path else ''}(\d{{1,9}})\.(.+)", str(key))
        if inside is not None and isinstance(value, Tensor) and not nn.parameter.is_lazy(value):
            name = re.sub(r"(?<![^.])\d+(?![^.])", "#", inside[2])
            children.setdefault(int(inside[1]), set()).add((name, value.ndim))
    return {index: frozenset(kind) for index, kind in children.items()}


def _steps(now: Sequence[Kind], wanted: Sequence[Kind]) -> Steps:
    """What turns some children into others; none if that takes more than leaving and entering of blocks."""
    steps: Steps = []
    for what, begin, end, start, stop in SequenceMatcher(None, now, wanted, autojunk=False).get_opcodes():
        if what == "equal":
            continue
        entering = wanted[start:stop]
        if what == "replace" or NOTHING in (*now[begin:end], *entering) or not {*entering} <= {*now}:
            return []
        steps.append((begin, end, [_nearest(now, kind, begin) for kind in entering]))
    return steps


def _nearest(children: Sequence[Kind], kind: Kind, place: int) -> int:
    """The last child of a kind in front of a place, or else the first behind it."""
    own = [index for index, each in enumerate(children) if each == kind]
    return max((index for index in own if index < place), default=own[0])


def _plan(found: FoundDepths, name: str, steps: Steps) -> tuple[Change, list[Birth]]:
    """Which blocks leave and enter, if they may."""
    depth = found.depths.get(name)
    if depth is None:
        raise unlike(found.model, f"it has another number of children of {name!r}, {_reasons(found, name)}")
    children = children_of(depth.stack.container)
    blocks = {block.module: block for block in depth.stack.blocks}
    gone = [child for begin, end, _ in steps for child in children[begin:end]]
    copied = [children[index] for _, _, like in steps for index in like]
    for child in (*gone, *copied):
        if child not in blocks:
            why = _reasons(found, f"{name}.{children.index(child)}")
            raise unlike(found.model, f"it has another number of children of {name!r}, {why}")
        if child in copied and not blocks[child].copies:
            raise StructureError(
                f"the state dict has more blocks in {name!r} than the model, whose code has no place for "
                "them: build it with as many"
            )
    with found.proof.all_heard():
        for child in dict.fromkeys((*gone, *copied)):
            _check_alike(found, depth, blocks[child])
    generator, births = torch.Generator().manual_seed(0), list[Birth]()
    for _, end, like in steps:
        before = next((child for child in children[end:] if child not in gone), None)
        births += [newborn(found.model, depth, blocks[children[i]], before, (), generator) for i in like]
    keep = [unit for unit, block in enumerate(depth.stack.blocks) if block.module not in gone]
    return Change(depth, tuple(keep), len(births)), births


def _reasons(found: FoundDepths, name: str) -> str:
    """Why a container has no blocks that may come and go, or why a child of it is none."""
    own = [
        f"{place} {each.reason}"
        for each in found.refused
        for place in each.places
        if name in (place, place.rpartition(".")[0])
    ]
    return f"of which {'; '.join(own[:3])}" if own else "which are no residual blocks"


def _check_alike(found: FoundDepths, depth: Depth, one: Block) -> None:
    """Refuse a block that leaves or is copied if others of its kind have other code.

    Which of them the state dict has, nothing says. What makes a difference in training alone, such as the
    rate of stochastic depth, does no harm.
    """
    shape = _tensors(one)
    origins = {block.origin: block for block in depth.stack.blocks if _tensors(block) == shape}
    for other in origins.values():
        if other.origin != one.origin and not _does_the_same(found, depth, one, other):
            names = {child: key for key, child in depth.stack.container._modules.items()}
            raise StructureError(
                f"blocks {names[one.module]} and {names[other.module]} of {depth.name!r} have the same "
                "tensors and compute different things, so that nothing says which of them the state dict "
                "has: build the model with the blocks that it was saved with"
            )


def _tensors(block: Block) -> Kind:
    return frozenset((name, tensor.ndim) for name, tensor in block.module.state_dict().items())


def _does_the_same(found: FoundDepths, depth: Depth, one: Block, other: Block) -> bool:
    """Whether a copy of one block, with the weights of another and in its place, does what that does."""
    children = depth.stack.container._modules
    key = next(key for key, child in children.items() if child is other.module)
    try:
        stand_in = deepcopy(one.module)
        for index in depth.stack.indices:
            setattr(stand_in.get_submodule(index.path), index.name, index.first + [*children].index(key))
        stand_in.load_state_dict(other.module.state_dict())
        children[key] = stand_in
        found.proof.same(found.proof.outputs(), found.proof.expected, "it is another function")
    except Exception:  # whatever a user's module raises when it is copied, or at the place of another
        return False
    finally:
        children[key] = other.module
    return True
