"""Surgery: the only place that cuts and pads tensors. All or nothing.

What holds for every tensor that a changed width lives in:

- surviving entries are bit-equal, in parameters, gradients, buffers and per-entry optimizer state;
- a new entry of a parameter is what `initialize` makes it, of a gradient zero, of optimizer state what the
  optimizer itself begins with;
- the tensor *object* stays the same one, so that all that refers to it (optimizer, shared module, weight
  average) goes on seeing the live weights, and the next backward and step train every entry;
- if anything fails, model and optimizer are as they were.

`plan` computes every new value without touching anything; `Plan.commit` only swaps storage. Of a model that
is sharded over processes, `operate_in_turn` has one tensor whole at a time.
"""

from diffstruct.surgery.awaited import write_into
from diffstruct.surgery.blocks import Birth, change_blocks, silence
from diffstruct.surgery.change import Change
from diffstruct.surgery.commit import Plan
from diffstruct.surgery.copies import Copy, copy_of
from diffstruct.surgery.forget import forget_parameters
from diffstruct.surgery.hidden_state import carry
from diffstruct.surgery.in_turn import operate_in_turn
from diffstruct.surgery.newborn import moments_of, newborn
from diffstruct.surgery.optimizer_state import (
    begin_state,
    check_optimizer,
    check_state,
    register_initial_state,
)
from diffstruct.surgery.planning import Initialize, operate, plan

__all__ = [
    "Birth",
    "Change",
    "Copy",
    "Initialize",
    "Plan",
    "begin_state",
    "carry",
    "change_blocks",
    "check_optimizer",
    "check_state",
    "copy_of",
    "forget_parameters",
    "moments_of",
    "newborn",
    "operate",
    "operate_in_turn",
    "plan",
    "register_initial_state",
    "silence",
    "write_into",
]
