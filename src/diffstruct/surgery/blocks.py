"""Surgery on depths: blocks leave and enter. All or nothing, as everywhere in surgery.

Blocks that stay are the same objects with the same tensors, which optimizers go on training with the state
that they have. A parameter that enters joins the group of its sibling's, with the state that the optimizer
begins with; one that leaves is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from diffstruct.distributed import find_blocks_anew, settle
from diffstruct.surgery.change import Change
from diffstruct.surgery.copies import Copy, with_modules
from diffstruct.surgery.optimizer_state import begin_state
from diffstruct.width.depth import Block, Depth, children_of


@dataclass(frozen=True)
class Birth:
    """A block that is to enter.

    Args:
        block: the new block.
        sibling: the block that it was copied from.
        before: the child of the container that it goes in front of; None: behind all.
        memo: by id of what belongs to the sibling, its copy: what `copy.deepcopy` remembers.
    """

    block: Block
    sibling: Block
    before: nn.Module | None
    memo: dict[int, Any]

    def twins(self) -> dict[nn.Module, nn.Module]:
        """By module of the sibling the module of the new block, without those that both share."""
        pairs = zip(self.sibling.module.modules(), self.block.module.modules(), strict=True)
        return {module: twin for module, twin in pairs if module is not twin}


def change_blocks(
    model: nn.Module,
    change: Change,
    births: Sequence[Birth] = (),
    optimizers: Sequence[Optimizer] = (),
    copies: MutableSequence[Copy] | None = None,
) -> Callable[[], None]:
    """Let blocks leave and enter.

    Args:
        model: the model.
        change: of a depth: which blocks stay, and how many enter.
        births: those that enter.
        optimizers: that train the model.
        copies: of the model, which change alike.

    Returns:
        A function that undoes it.
    """
    depth = change.width
    assert isinstance(depth, Depth)
    assert change.add == len(births)
    stack, kept = depth.stack, set(change.keep)
    gone = [block.module for unit, block in enumerate(stack.blocks) if unit not in kept]
    entering = [(birth.before, birth.sibling.module, birth.block.module) for birth in births]
    settle(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    with ExitStack() as undo:
        undo.callback(find_blocks_anew, model)
        old = children_of(stack.container)
        _arrange(stack.container, gone, entering, undo)
        origin = _origin(old, children_of(stack.container), births)
        if copies is not None:
            _copies_follow(copies, stack.container, gone, births, undo)
        _set(stack, "blocks", [stack.blocks[unit] for unit in change.keep] + [b.block for b in births], undo)
        _set(depth.axis, "size", change.new_size, undo)
        for twin_of in [{}, *(copy.modules for copy in copies or ())]:
            _keep_in_step(depth, change.new_size - change.size, origin, twin_of, undo)
        _optimizers_follow(model, optimizers, gone, births, names, undo)
        find_blocks_anew(model)
        return undo.pop_all().close


def _set(owner: Any, name: str, value: Any, undo: ExitStack) -> None:
    undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def _arrange(
    container: nn.Module,
    gone: Iterable[nn.Module],
    entering: Sequence[tuple[nn.Module | None, nn.Module, nn.Module]],
    undo: ExitStack,
) -> None:
    """Give a container other children: `entering` are place, sibling and new module of each that enters."""
    children, before = container._modules, dict(container._modules)
    gone, numbered = {*gone}, [*before] == [str(index) for index in range(len(before))]
    names = {module: name for name, module in before.items()}
    after: list[tuple[str, nn.Module | None]] = []
    for name, child in [*before.items(), ("", None)]:
        place = child if name else None
        for where, sibling, module in entering:
            if where is place:
                after.append((_free(names[sibling], {*before, *dict(after)}), module))
        if name and child not in gone:
            after.append((name, child))

    undo.callback(_refill, children, before)
    children.clear()
    children.update({str(i): child for i, (_, child) in enumerate(after)} if numbered else dict(after))


def _free(name: str, taken: Iterable[str]) -> str:
    """A name like this one that is not taken."""
    taken, count = {*taken}, 2
    while f"{name}_{count}" in taken:
        count += 1
    return f"{name}_{count}"


def _origin(old: Sequence[nn.Module], new: Sequence[nn.Module], births: Sequence[Birth]) -> list[int]:
    """For each child of a container the place that it had before, or that of its sibling."""
    siblings = {birth.block.module: birth.sibling.module for birth in births}
    return [old.index(siblings.get(child, child)) for child in new]


def _keep_in_step(
    depth: Depth,
    more: int,
    origin: Sequence[int],
    twin_of: Mapping[nn.Module, nn.Module],
    undo: ExitStack,
) -> None:
    """Bring what holds the number of blocks, or the place of one, up to date.

    Args:
        depth: after the change.
        more: blocks than before.
        origin: the place before of each child of the container.
        twin_of: the modules of a copy of the model by those of the model; empty for the model itself.
    """
    owners = [(each.owner(twin_of.get(each.module, each.module)), each.name) for each in depth.stack.counters]
    for owner, name in {(id(owner), name): (owner, name) for owner, name in owners}.values():
        value = getattr(owner, name)
        new = [value[place] for place in origin] if isinstance(value, list) else value + more
        _set(owner, name, new, undo)
    for place, child in enumerate(children_of(depth.stack.container)):
        for index in depth.stack.indices:
            inner = dict(twin_of.get(child, child).named_modules()).get(index.path)
            if inner is not None and hasattr(inner, index.name):
                _set(inner, index.name, index.first + place, undo)


def _copies_follow(
    copies: MutableSequence[Copy],
    container: nn.Module,
    gone: Iterable[nn.Module],
    births: Sequence[Birth],
    undo: ExitStack,
) -> None:
    before = [*copies]
    undo.callback(copies.__setitem__, slice(None), before)
    for number, copy in enumerate(before):
        twins, entering = copy.modules, []
        new: dict[nn.Module, nn.Module] = {}
        for birth in births:
            twin = _twin(birth, twins)
            new.update(zip(birth.block.module.modules(), twin.modules(), strict=True))
            place = None if birth.before is None else twins[birth.before]
            entering.append((place, twins[birth.sibling.module], twin))
        _arrange(twins[container], [twins[module] for module in gone], entering, undo)
        copies[number] = with_modules({**twins, **new})


def _twin(birth: Birth, twins: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The new block of a copy of the model, with which it shares what the new block shares with the model."""
    inside = {*birth.twins().values()}
    memo = {id(each): twins[each] for each in birth.block.module.modules() if each not in inside}
    twin = deepcopy(birth.block.module, memo)
    theirs = dict(twins[birth.sibling.module].named_parameters())
    for name, parameter in twin.named_parameters():
        if name in theirs:
            parameter.requires_grad_(theirs[name].requires_grad)
    return twin


def _optimizers_follow(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    gone: Iterable[nn.Module],
    births: Sequence[Birth],
    names: Mapping[int, str],
    undo: ExitStack,
) -> None:
    """Forget the parameters that have left, and train those that have entered.

    A group that loses all its parameters stays, empty: schedulers count groups.
    """
    now = {id(parameter): name for name, parameter in model.named_parameters()}
    lost = {id(p): p for module in gone for p in module.parameters() if id(p) not in now}
    entered: dict[int, list[nn.Parameter]] = {}
    for birth in births:
        theirs = birth.sibling.module.named_parameters()
        for (_, parameter), (_, twin) in zip(theirs, birth.block.module.named_parameters(), strict=True):
            if twin is not parameter and id(twin) not in names:
                entered.setdefault(id(parameter), []).append(twin)
    for optimizer in optimizers:
        undo.callback(_refill, optimizer.state, dict(optimizer.state))  # in the order that it had
        for parameter in [lost[key] for key in lost if lost[key] in optimizer.state]:
            del optimizer.state[parameter]
        for group in optimizer.param_groups:
            held: list[Tensor] = group["params"]
            kept = [parameter for parameter in held if id(parameter) not in lost]
            pairs = [(twin, parameter) for parameter in held for twin in entered.get(id(parameter), ())]
            new = [twin for twin, _ in pairs]
            if "param_names" in group:
                own = zip(held, group["param_names"], strict=True)
                called = {
                    id(p): now.get(id(p), name) if names.get(id(p)) == name else name for p, name in own
                }
                called.update((id(twin), now[id(twin)]) for twin in new)
                ordered = _in_order([*kept, *new], model)
                _set_entry(group, "param_names", [called[id(p)] for p in ordered], undo)
            _set_entry(group, "params", _in_order([*kept, *new], model), undo)
            for twin, sibling in pairs:
                begin_state(optimizer, group, twin, sibling)


def _refill(holder: dict[Any, Any], contents: Mapping[Any, Any]) -> None:
    holder.clear()
    holder.update(contents)


def _in_order(parameters: Sequence[Tensor], model: nn.Module) -> list[Tensor]:
    """Parameters in the order that they have in the model, which a state dict relies on; others go last.

    However blocks came and went, the same blocks give the same order.
    """
    places = {id(parameter): place for place, parameter in enumerate(model.parameters())}
    return sorted(parameters, key=lambda parameter: places.get(id(parameter), len(places)))


def _set_entry(group: dict[str, Any], key: str, value: Any, undo: ExitStack) -> None:
    undo.callback(group.__setitem__, key, group[key])
    group[key] = value


@torch.no_grad()
def silence(block: Block) -> Callable[[], None]:
    """Silence a block; returns a function that undoes it, to the bit."""
    tensors = [getattr(module, name) for module, name in block.last]
    loud = [tensor.detach().clone() for tensor in tensors]
    for tensor in tensors:
        tensor.data.zero_()

    def back() -> None:
        for tensor, value in zip(tensors, loud, strict=True):
            tensor.data.copy_(value)

    return back
