"""What a structure's state dict says, and how a structure comes to be what it says.

All that a run depends on beside model and optimizers is in it: sizes and blocks, what rule and criterion
remember, the generator, the history, and what new units are drawn like. Loading is all or nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields as fields_of
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from diffstruct.errors import ConfigurationError
from diffstruct.history.state import history_state
from diffstruct.rule import Rule, RuleState
from diffstruct.states import Fields, tensor_of
from diffstruct.structure.arranging import arrangement
from diffstruct.structure.changing import ChangingStructure
from diffstruct.width import Depth, Slot, Width
from diffstruct.width.depth import children_of

FORMAT = 3
"""Raised when what a state dict says changes its meaning."""


def state_of(structure: ChangingStructure) -> dict[str, Any]:
    """The state dict of a structure, with tensors of its own."""
    training, criterion = structure.training, structure.criterion
    names = {module: path for path, module in structure.model.named_modules()}
    written, processes = structure._widening, training.processes
    # Of a sharded model all processes ask for the state together, and any of them may save it.
    all_ask = processes.sharding is not None
    losses = structure._losses.of_all(processes) if all_ask else structure._losses.values()
    return {
        "format": FORMAT,
        "criterion_type": type(criterion).__name__,
        "total_steps": training.total_steps,
        "interval": training.interval,
        "steps": structure.steps,
        "skipped": structure.guard.skipped,
        "finished": structure._finished,
        "widths": {name: _width_state(structure, name, names) for name in structure.widths},
        "depths": {
            width.name: _depth_state(width) for width in structure.widths.values() if isinstance(width, Depth)
        },
        "criterion": {} if structure._finished else criterion.state_dict(),
        "growth": {} if structure._finished else structure._growth.state_dict(),
        "widening": None if written is None else written.state_dict(names),
        "generator": json.dumps(training.generator.bit_generator.state),
        "history": history_state(structure.history),
        "losses": torch.tensor(losses, dtype=torch.float64),
    }


def _width_state(structure: ChangingStructure, name: str, names: Mapping[nn.Module, str]) -> dict[str, Any]:
    width, memory = structure._found.widths[name], structure.states[name]
    slots: list[list[Any]] | None = []
    if structure._finished and any(slot.module not in names for slot in width.slots):
        slots = None  # modules of ours have become plain ones
    elif not isinstance(width, Depth):  # the criterion's widths have the same slots, and others behind them
        pairs = zip(width.slots, structure.widths[name].slots, strict=False)
        slots = [[*place(slot, names), drawn.scale, drawn.fill] for slot, drawn in pairs]
        if structure._finished:  # no unit will be drawn any more
            slots = [[*each[:3], None, None] for each in slots]
    return {
        "size": width.size,
        "slots": slots,
        "multiple_of": structure.multiple_of[name],
        "rule": dict(vars(structure.training.rules[name])),
        "ages": tensor_of(memory.ages),
        "risen": tensor_of(memory.risen),
        "spare": tensor_of(structure._spare[name]),
    }


def _depth_state(depth: Depth) -> dict[str, Any]:
    children = children_of(depth.stack.container)
    return {
        "children": arrangement(depth),
        "units": [children.index(block) for block in depth.blocks],
        "moments": {name: [*moments] for name, moments in depth.stack.moments.items()},
    }


def mark_of(state: Fields) -> int:
    """A number that differs where state dicts do, but for the last batch that was recorded.

    That is of the process whose state it is.
    """
    criterion = {key: value for key, value in state.fields("criterion").value.items() if key != "outputs"}
    leaves, spec = tree_flatten({**state.value, "criterion": criterion})
    mark = crc32(repr(spec).encode())
    for each in leaves:
        if isinstance(each, Tensor):
            mark = crc32(repr((each.shape, each.dtype)).encode(), mark)
            flat = torch.empty(each.numel(), dtype=each.dtype).copy_(each.detach().reshape(-1))
            mark = crc32(flat.view(torch.uint8).numpy().tobytes(), mark)
        else:
            mark = crc32(repr(each).encode(), mark)
    return mark


def place(slot: Slot, names: Mapping[nn.Module, str]) -> tuple[str, str, int]:
    """Where a slot lies: the path of its module, the name of the tensor, and the dimension."""
    return names[slot.module], slot.name, slot.dim


def rule_of(state: Fields, size: int) -> Rule:
    """The rule of a width of so many units."""
    known = {each.name for each in fields_of(Rule)}
    if {*state.value} != known:
        raise state.wrong("", f"has {sorted(state.value)}, not what a rule consists of")
    try:
        rule = Rule(**state.value)
        rule.numbers(size, torch.float64)
    except (ConfigurationError, TypeError) as error:
        raise state.wrong("", f"is no rule ({error})") from error
    return rule


def memory_of(state: Fields, size: int) -> RuleState:
    """What the rule remembers of so many units."""
    return RuleState(state.array("ages", (size,), np.int64), state.array("risen", (size,), np.bool_))


def with_slots_as(width: Width, entries: list[tuple[int, float | None, float | None]]) -> Width:
    """The width with its slots in another order, and what new entries are drawn like.

    Args:
        width: the width.
        entries: of each of the first slots the index that it has now, its scale and its fill.
    """
    own = [(index, slot.scale, slot.fill) for index, slot in enumerate(width.slots[: len(entries)])]
    if own == entries:  # slots that differ in what is drawn alone are equal, so that these do not tell
        return width
    slots = [replace(width.slots[index], scale=scale, fill=fill) for index, scale, fill in entries]
    return replace(width, slots=(*slots, *width.slots[len(entries) :]))
