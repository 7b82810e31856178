"""Loading a structure's state dict: model, optimizers and copies come to its sizes, or nothing changes."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from diffstruct.errors import StructureError
from diffstruct.interrupts import uninterrupted
from diffstruct.rule import Decision, RuleState, addition, decision
from diffstruct.states import Fields
from diffstruct.structure.arranging import arranged, arrangement
from diffstruct.structure.history import History
from diffstruct.structure.parts import StructureParts
from diffstruct.structure.shapes import Shapes, apart, sizes_of_shapes, tensors_of, unlike
from diffstruct.structure.state import (
    FORMAT,
    history_of,
    memory_of,
    place,
    rule_of,
    tensor_names,
    with_slots_as,
)
from diffstruct.structure.widening import Widening
from diffstruct.surgery import Birth
from diffstruct.surgery.planning import leave_zero
from diffstruct.width import Depth, Width
from diffstruct.width.cost import sizes_of
from diffstruct.width.depth import children_of
from diffstruct.width.solving import NoSizesError


def load_state(structure: StructureParts, state: Any) -> None:
    """Bring a structure, its model and its optimizers to what a state dict says; see `Structure`."""
    fields = Fields(state)
    _check(structure, fields)
    with _all_or_nothing(structure) as undo:
        _load_blocks(structure, fields.fields("depths"), undo)
        _match_widths(structure, fields.fields("widths"))
        entries = fields.fields("widths").each()
        sizes = {name: each.whole("size", 1) for name, each in entries.items()}
        structure._operate(resizing(structure, sizes), leave_zero, 0, undo=undo)
        structure.states = {name: memory_of(each, sizes[name]) for name, each in entries.items()}
        structure._spare = {n: each.array("spare", (sizes[n],), np.bool_) for n, each in entries.items()}
        structure.history = history_of(fields.fields("history"))
        structure.steps, structure._last = fields.whole("steps"), {}
        _load_generator(structure, fields)
        if fields.flag("finished"):
            structure._end({}, undo)
            return
        structure._widening = None
        if fields["widening"] is not None:
            names = tensor_names(structure.model)
            structure._widening = Widening.of_state(structure.widths, fields.fields("widening"), names)
        structure._growth.load_state_dict(fields.fields("growth"))
        structure.criterion.load_state_dict(fields.fields("criterion").value)
        structure._record_next()


def resizing(structure: StructureParts, sizes: Mapping[str, int]) -> dict[str, Decision]:
    """Decisions that give widths other sizes: the first units stay, and others come behind them."""
    found = {}
    for name, memory in structure.states.items():
        now = len(memory.ages)
        removed = np.arange(now) >= sizes.get(name, now)
        found[name] = decision(removed, max(0, sizes.get(name, now) - now), memory)
    return found


def _check(structure: StructureParts, fields: Fields) -> None:
    """Refuse the state dict of another format or run.

    Raises:
        StructureError: it is one.
    """
    if structure._finished:
        raise StructureError(
            "the structure is finished, and its model is plain: make model, optimizer and structure anew, as "
            "they were made at first, and load into these"
        )
    if fields.whole("format") != FORMAT:
        raise fields.wrong("format", f"is {fields['format']}, and this version reads {FORMAT}")
    own = {
        "criterion_type": type(structure.criterion).__name__,
        "total_steps": structure.training.total_steps,
        "interval": structure.training.interval,
    }
    for key, value in own.items():
        if fields[key] != value:
            raise StructureError(
                f"the state dict is of a structure with {key} {fields[key]!r:.40}, this one has {value!r}: "
                "make it with the same arguments"
            )


@contextmanager
def _all_or_nothing(structure: StructureParts) -> Iterator[ExitStack]:
    """Undo, if anything fails, all that happens to a structure; surgery tells how to undo it."""
    criterion, found, training = structure.criterion, structure._found, structure.training
    remembered = criterion.state_dict()
    chance = training.generator.bit_generator.state
    own, theirs, moments = dict(vars(structure)), dict(vars(found)), _moments(structure)
    history = structure.history
    structure.history = History([*history.events], [*history.measurements], [*history.names])
    growth = structure._growth.state_dict()
    with training.processes.following(), ExitStack() as undo:
        try:
            yield undo
        except BaseException:
            undo.close()
            vars(structure).update(own)
            vars(found).update(theirs)
            for depth, known in moments:
                depth.stack.moments = known
            training.generator.bit_generator.state = chance
            structure._growth.load_state_dict(Fields(growth))
            criterion.follow(structure.widths, structure.training, {name: name for name in structure.widths})
            criterion.load_state_dict(remembered)
            structure._record_next()
            raise
        undo.pop_all()


def _moments(structure: StructureParts) -> list[tuple[Depth, Mapping[str, tuple[float, float]]]]:
    depths = (width for width in structure.widths.values() if isinstance(width, Depth))
    return [(depth, depth.stack.moments) for depth in depths]


def _load_blocks(structure: StructureParts, fields: Fields, undo: ExitStack) -> None:
    """Let blocks leave and enter, and give them the order of units that they have in the state dict."""
    depths = {name: width for name, width in structure.widths.items() if isinstance(width, Depth)}
    if {*depths} != {*fields.value}:
        raise fields.wrong("", f"has the depths {sorted(fields.value)}, the model has {sorted(depths)}")
    for name, depth in depths.items():
        entry = fields.fields(name)
        wanted = entry.items("children")
        if not all(each is None or (isinstance(each, int) and each >= 0) for each in wanted):
            raise entry.wrong("children", "has what is no origin of a block")
        if arrangement(depth) != [*wanted]:
            if structure._loads > 0:
                raise StructureError(
                    f"the blocks of {name!r} are not those of the state dict, and the model was loaded "
                    "already: load the structure's state dict first, then the model's"
                )
            arrange(structure, depth, wanted, undo)
        moments = entry.fields("moments")
        known = {}
        for each in moments.value:
            mean, deviation = moments.items(each)
            pair = Fields({"mean": mean, "deviation": deviation}, f"{moments.where}.{each}")
            known[each] = pair.number("mean"), pair.number("deviation")
        depth.stack.moments = known
        children, blocks = children_of(depth.stack.container), depth.stack.blocks
        by_module = {block.module: block for block in blocks}
        units = entry.items("units")
        origins = [place for place, origin in enumerate(wanted) if origin is not None]
        if not all(isinstance(unit, int) for unit in units) or sorted(units) != origins:
            raise entry.wrong("units", "are not the places of the blocks")
        undo.callback(setattr, depth.stack, "blocks", blocks)
        depth.stack.blocks = [by_module[children[unit]] for unit in units]


def arrange(
    structure: StructureParts, depth: Depth, wanted: Sequence[int | None], undo: ExitStack | None = None
) -> None:
    """Give a depth the blocks that are wanted."""
    name = depth.name
    which, births = arranged(structure.model, depth, wanted, structure.states[name], structure.widths)
    decisions: dict[str, Decision] = {each: addition(memory, 0) for each, memory in structure.states.items()}
    entering: dict[str, list[Birth]] = {name: births} if births else {}
    structure._operate({**decisions, name: which}, leave_zero, 0, births=entering, undo=undo)


def _match_widths(structure: StructureParts, fields: Fields) -> None:
    """Call the widths what the state dict calls them, in its order; what new units are like comes with it.

    Raises:
        StructureError: the widths do not lie in the same tensors.
    """
    names = {module: path for path, module in structure.model.named_modules()}
    found = structure._found.widths
    left = dict(found)
    origin: dict[str, str] = {}
    orders = {}
    for name, entry in fields.each().items():
        slots = [_slot(entry, each) for each in entry.items("slots")] if entry["slots"] is not None else []
        where = sorted(each[0] for each in slots)
        fitting = [each for each, width in left.items() if _places(width, names) == where]
        if entry["slots"] is None:  # they were in modules of ours, and the run has finished
            fitting = [name] if name in left else []
        if not fitting:
            raise entry.wrong("slots", "are not those of any width of the model that is left")
        origin[name] = name if name in fitting else fitting[0]
        width = left.pop(origin[name])
        orders[name] = _order(width, slots, names)
    if left:
        raise fields.wrong("", f"lacks the widths {sorted(left)}")
    attached = structure.widths
    widths = {
        new: replace_name(with_slots_as(attached[old], orders[new]), new) for new, old in origin.items()
    }
    rules = {
        name: rule_of(each.fields("rule"), each.whole("size", 1)) for name, each in fields.each().items()
    }
    structure.multiple_of = {name: each.whole("multiple_of", 1) for name, each in fields.each().items()}
    structure.training = replace(structure.training, rules=rules, multiple_of=structure.multiple_of)
    structure.states = {new: structure.states[old] for new, old in origin.items()}
    structure._spare = {new: structure._spare[old] for new, old in origin.items()}
    structure._found.widths = {
        new: widths[new] if found[old] is attached[old] else found[old] for new, old in origin.items()
    }
    structure.widths = widths
    structure.criterion.follow(widths, structure.training, {**origin})


class ResizesOnLoad:
    """A hook that gives a model the sizes of a state dict right before it is loaded. Copies do nothing.

    Args:
        owner: the structure, which the model must not keep alive; None for nothing.
    """

    def __init__(self, owner: StructureParts | None) -> None:
        self._owner = None if owner is None else weakref.ref(owner)

    def __call__(self, module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        """Before `module.load_state_dict`, which gives these arguments."""
        owner = None if self._owner is None else self._owner()
        if owner is not None:
            with owner.training.processes.following():
                follow_load(owner, state_dict, prefix)

    @property
    def idle(self) -> bool:
        """Whether this is the hook of a copy, which does nothing."""
        return self._owner is None

    def __reduce__(self) -> tuple[type[ResizesOnLoad], tuple[None]]:
        return ResizesOnLoad, (None,)


def resize_on_load(structure: StructureParts) -> RemovableHandle:
    """Let the model of a structure take on the sizes of the state dicts that are loaded into it."""
    hooks = structure.model._load_state_dict_pre_hooks
    for key, each in [*hooks.items()]:  # what has come with a copy of another model does nothing
        hook = getattr(each, "hook", None)
        if isinstance(hook, ResizesOnLoad) and hook.idle:
            del hooks[key]
    register: Callable[[Any], RemovableHandle] = structure.model.register_load_state_dict_pre_hook
    return register(ResizesOnLoad(structure))


@uninterrupted
def follow_load(structure: StructureParts, state_dict: Mapping[str, Any], prefix: str) -> None:
    """Bring the model to the sizes of its own state dict; the units are then judged as if they were new.

    Raises:
        StructureError: it has no such sizes, or they do not follow from the shapes alone.
    """
    model = structure.model
    structure.guard.forget()  # buffers are about to be others
    for depth in [width for width in structure.widths.values() if isinstance(width, Depth)]:
        _follow_blocks(structure, depth, state_dict, prefix)
    wanted: Shapes = {}
    for key, module, name, tensor in tensors_of(model):
        value = state_dict.get(prefix + key)
        if isinstance(value, Tensor) and value.ndim == tensor.ndim:
            wanted[module, name] = tuple(value.shape)
    structure._loads += 1
    if not apart(model, wanted):
        return
    try:
        sizes = sizes_of_shapes(model, structure.widths, wanted)
    except NoSizesError as error:
        raise unlike(model, str(error)) from error
    own = sizes_of(structure.widths.values())
    sizes = {name: size for name, size in sizes.items() if size != own[name]}
    structure._operate(resizing(structure, sizes), leave_zero, 0)
    for name, size in sizes.items():
        structure.states[name] = RuleState.initial(size)


def _follow_blocks(
    structure: StructureParts, depth: Depth, state_dict: Mapping[str, Any], prefix: str
) -> None:
    names = {module: path for path, module in structure.model.named_modules()}
    begin = f"{prefix}{names[depth.stack.container]}."
    there = {key[len(begin) :].split(".")[0] for key in state_dict if key.startswith(begin)}
    now = arrangement(depth)
    if not there or len(there) == len(now):
        return
    if {*now} != {0}:
        raise StructureError(
            f"the state dict has {len(there)} blocks of {depth.name!r}, the model {len(now)}, which are not "
            "all alike: load the structure's state dict first, then the model's"
        )
    arrange(structure, depth, [0] * len(there))


def replace_name(width: Width, name: str) -> Width:
    """The width under another name; the same object if it has that name."""
    return width if width.name == name else replace(width, name=name)


def _slot(entry: Fields, value: Any) -> tuple[tuple[str, str, int], float | None, float | None]:
    if not isinstance(value, (list, tuple)) or len(value) != 5:
        raise entry.wrong("slots", "has what is no slot")
    each = Fields(
        dict(zip(("path", "name", "dim", "scale", "fill"), value, strict=True)), f"{entry.where}.slots"
    )
    scale = None if each["scale"] is None else each.number("scale")
    fill = None if each["fill"] is None else each.number("fill")
    return (each.text("path"), each.text("name"), each.whole("dim")), scale, fill


def _places(width: Width, names: Mapping[Any, str]) -> list[tuple[str, str, int]]:
    return [] if isinstance(width, Depth) else sorted(place(slot, names) for slot in width.slots)


def _order(
    width: Width,
    slots: Sequence[tuple[tuple[str, str, int], float | None, float | None]],
    names: Mapping[Any, str],
) -> list[tuple[int, float | None, float | None]]:
    """Of each slot of the state dict the index of the width's own one, and what new entries are like."""
    left = {} if isinstance(width, Depth) else dict(enumerate(place(slot, names) for slot in width.slots))
    found = []
    for where, scale, fill in slots:
        index = next(index for index, each in left.items() if each == where)
        del left[index]
        found.append((index, scale, fill))
    return found


def _load_generator(structure: StructureParts, fields: Fields) -> None:
    try:
        structure.training.generator.bit_generator.state = json.loads(fields.text("generator"))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise fields.wrong("generator", f"is no state of the generator ({error})") from error
