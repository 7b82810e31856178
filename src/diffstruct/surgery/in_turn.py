"""Surgery where processes have parts of the tensors: these are whole one after the other, not all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from diffstruct.distributed import Processes, is_sharded
from diffstruct.surgery.awaited import Awaited
from diffstruct.surgery.change import Change
from diffstruct.surgery.commit import Plan, Resized
from diffstruct.surgery.outline import Outline, outline
from diffstruct.surgery.planning import Initialize, enter_attributes, enter_states, leave_zero

_WHAT = "a change of structure"


@dataclass(frozen=True)
class _Turns:
    """What becomes of each tensor in its turn.

    Args:
        todo: the surgery.
        awaited: what is written into new values.
    """

    todo: Outline
    awaited: Awaited

    def beside(self, tensor: Tensor) -> list[Tensor]:
        """Other sharded tensors that `value` needs whole."""
        return self.awaited.beside(tensor)

    def value(self, tensor: Tensor, old: Tensor, beside: Sequence[Tensor]) -> Tensor:
        """The new value of a tensor."""
        value = self.todo.value(tensor, old)
        self.awaited.write(tensor, value, beside)
        return value

    def gradient(self, tensor: Tensor, old: Tensor) -> Tensor:
        """The new value of its gradient."""
        return self.todo.gradient(tensor, old)

    def state(self, tensor: Tensor, optimizer: Optimizer, value: Tensor, key: Any, old: Tensor) -> Tensor:
        """The new value of an entry of its optimizer state."""
        return self.todo.state(tensor, optimizer, value, key, old)


def operate_in_turn(
    changes: Iterable[Change],
    processes: Processes,
    optimizers: Sequence[Optimizer] = (),
    initialize: Initialize = leave_zero,
) -> Callable[[], None]:
    """Carry a surgery out on a model that is sharded: on all processes or, if it fails on one, on none.

    Args:
        changes: at most one for each width, the same ones on all processes.
        processes: that have the model's shards.
        optimizers: those whose state follows the parameters.
        initialize: writes the entries of the new units, through `write_into`.

    Returns:
        A function that undoes it here.

    Raises:
        StructureError: see `plan`; or another process has failed.
    """
    assert processes.sharding is not None
    with ExitStack() as undo:
        with processes.alike(_WHAT):
            todo = outline(changes, optimizers)
            awaited = Awaited({tensor: todo.shape(tensor) for tensor in todo.tensors})
            initialize(todo.changes, awaited)
            awaited.check()
        with processes.alike(_WHAT):
            turns = _Turns(todo, awaited)
            sharded = [tensor for tensor in todo.tensors if is_sharded(tensor)]
            undo.callback(processes.sharding.in_turn(sharded, optimizers, turns))
            undo.callback(_rest(turns, optimizers).commit())
        return undo.pop_all().close


def _rest(turns: _Turns, optimizers: Sequence[Optimizer]) -> Plan:
    """What is to be done on each process by itself: buffers and other tensors that all have, and sizes."""
    result, todo = Plan(), turns.todo
    own = [tensor for tensor in todo.tensors if not is_sharded(tensor)]
    values = {tensor: turns.value(tensor, tensor, turns.beside(tensor)) for tensor in own}
    for tensor, value in values.items():
        grad = None if tensor.grad is None else turns.gradient(tensor, tensor.grad)
        result.tensors.append(Resized(tensor, value, grad))
    enter_states(result, todo, optimizers, values)
    enter_attributes(result, todo)
    return result
