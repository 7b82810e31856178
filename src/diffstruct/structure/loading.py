"""Loading a structure's state dict: model, optimizers and copies come to its sizes, or nothing changes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from diffstruct.errors import StructureError
from diffstruct.history.state import history_of
from diffstruct.rule import Decision, addition, decision
from diffstruct.states import Fields
from diffstruct.structure.arranging import arranged, arrangement
from diffstruct.structure.changing import ChangingStructure
from diffstruct.structure.losses import LAST, Losses
from diffstruct.structure.state import (
    FORMAT,
    mark_of,
    memory_of,
    place,
    rule_of,
    with_slots_as,
)
from diffstruct.structure.widening import Widening
from diffstruct.surgery import Birth
from diffstruct.surgery.planning import leave_zero
from diffstruct.width import Depth, Width
from diffstruct.width.depth import children_of


def load_state(structure: ChangingStructure, state: Any) -> None:
    """Bring a structure, its model and its optimizers to what a state dict says; see `Structure`.

    Where several processes have parts of the model, each of them has to load, and all of them do, or none.
    """
    processes, what = structure.training.processes, "loading the structure's state dict"
    with structure._all_or_nothing() as undo:
        with processes.alike(what):
            fields = Fields(state)
            _check(structure, fields)
            _load_blocks(structure, fields.fields("depths"), undo)
            _match_widths(structure, fields.fields("widths"))
            entries = fields.fields("widths").each()
            sizes = {name: each.whole("size", 1) for name, each in entries.items()}
            mark = mark_of(fields) if processes.sharding is not None else None
        if processes.sharding is not None:
            processes.agree(mark, "the state dicts that they load into their structures")
        with processes.alike(what):
            structure._operate(resizing(structure, sizes), leave_zero, 0, undo=undo)
            structure.states = {name: memory_of(each, sizes[name]) for name, each in entries.items()}
            structure._spare = {n: each.array("spare", (sizes[n],), np.bool_) for n, each in entries.items()}
            _load_rest(structure, fields, undo)
            structure._loads = -1


def _load_rest(structure: ChangingStructure, fields: Fields, undo: ExitStack) -> None:
    """What is no matter of sizes."""
    structure.history = history_of(fields.fields("history"))
    structure._losses = Losses(_losses(fields))
    structure.steps, structure._last = fields.whole("steps"), {}
    structure.guard.skipped = fields.whole("skipped")
    _load_generator(structure, fields)
    if fields.flag("finished"):
        structure._end({}, undo)
        return
    structure._widening = None
    if fields["widening"] is not None:
        names = {module: path for path, module in structure.model.named_modules()}
        structure._widening = Widening.of_state(structure.widths, fields.fields("widening"), names)
    structure._growth.load_state_dict(fields.fields("growth"))
    structure.criterion.load_state_dict(fields.fields("criterion").value)
    structure._record_next()


def resizing(structure: ChangingStructure, sizes: Mapping[str, int]) -> dict[str, Decision]:
    """Decisions that give widths other sizes: the first units stay, and others come behind them."""
    found = {}
    for name, memory in structure.states.items():
        now = len(memory.ages)
        removed = np.arange(now) >= sizes.get(name, now)
        found[name] = decision(removed, max(0, sizes.get(name, now) - now), memory)
    return found


def _check(structure: ChangingStructure, fields: Fields) -> None:
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


def _load_blocks(structure: ChangingStructure, fields: Fields, undo: ExitStack) -> None:
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
        undo.callback(setattr, depth.stack, "moments", depth.stack.moments)
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
    structure: ChangingStructure, depth: Depth, wanted: Sequence[int | None], undo: ExitStack
) -> None:
    """Give a depth the blocks that are wanted."""
    name = depth.name
    which, births = arranged(structure.model, depth, wanted, structure.states[name], structure.widths)
    decisions: dict[str, Decision] = {each: addition(memory, 0) for each, memory in structure.states.items()}
    entering: dict[str, list[Birth]] = {name: births} if births else {}
    structure._operate({**decisions, name: which}, leave_zero, 0, births=entering, undo=undo)


def _match_widths(structure: ChangingStructure, fields: Fields) -> None:
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


def _losses(fields: Fields) -> list[float]:
    losses = fields.array("losses", None, np.float64)
    if losses.ndim != 1 or len(losses) > LAST:
        raise fields.wrong("losses", f"has shape {[*losses.shape]}, not [{LAST}] or less")
    found: list[float] = losses.tolist()
    return found


def _load_generator(structure: ChangingStructure, fields: Fields) -> None:
    try:
        structure.training.generator.bit_generator.state = json.loads(fields.text("generator"))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise fields.wrong("generator", f"is no state of the generator ({error})") from error
