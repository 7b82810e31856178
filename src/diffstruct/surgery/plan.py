"""Surgery: the only place that cuts and pads tensors. All or nothing.

Invariants, for every tensor that a changed width lives in:

- surviving entries are bit-equal, in parameters, gradients, buffers and per-entry optimizer state;
- a new entry of a parameter is what `initialize` makes it, of a gradient zero, of optimizer state what the
  optimizer itself begins with;
- the tensor *object* stays the same one, so that whoever refers to it (optimizer, shared module, weight
  average) goes on seeing the live weights, and the next backward and step train every entry;
- if anything fails, model and optimizer are as they were.

`plan` computes every new value without touching anything; `Plan.commit` only swaps storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from diffstruct.errors import StructureError
from diffstruct.surgery.optimizer_state import check_optimizer, check_state, initial_value, state_dims
from diffstruct.width.layout import Axis, Layout, sources
from diffstruct.width.width import Slot, Width


@dataclass(frozen=True)
class Change:
    """One width's part of a surgery: the units that stay, in order, and how many come after them."""

    width: Width
    keep: tuple[int, ...]
    add: int
    size: int = field(init=False)  # units before; the width itself will tell the new size

    def __post_init__(self) -> None:
        size = self.width.size
        object.__setattr__(self, "size", size)
        ascending = all(a < b for a, b in zip(self.keep, self.keep[1:], strict=False))
        if not ascending or (self.keep and not 0 <= self.keep[0] <= self.keep[-1] < size):
            raise StructureError(
                f"the units of width {self.width.name!r} that stay must be ascending indices below {size}, "
                f"got {self.keep}"
            )
        if self.add < 0 or self.new_size < 1:
            raise StructureError(
                f"width {self.width.name!r} must keep at least one unit, got {len(self.keep)} that stay "
                f"and {self.add} that come"
            )

    @property
    def new_size(self) -> int:
        """Units after the change."""
        return len(self.keep) + self.add

    @property
    def move(self) -> Tensor:
        """For each new unit the old unit that it was, or -1: int64 `[new_size]`."""
        return torch.tensor((*self.keep, *[-1] * self.add), dtype=torch.int64)


@dataclass(frozen=True)
class Cut:
    """What a change does along one dimension: which old entry goes where in the new layout."""

    source: Tensor  # int64, positions in the old dimension of the entries that stay
    target: Tensor  # int64, their positions in the new dimension
    length: int  # entries of the new dimension

    @staticmethod
    def of(source: Tensor) -> Cut:
        """The cut that takes each new entry from the old position that `source` says; -1 means none."""
        target = (source >= 0).nonzero().flatten()
        return Cut(source[target], target, len(source))

    def apply(self, tensor: Tensor, dim: int, fill: float) -> Tensor:
        """A new tensor whose surviving entries are those of `tensor`, the others `fill`."""
        shape = [*tensor.shape]
        shape[dim] = self.length
        new = torch.full(shape, fill, dtype=tensor.dtype, device=tensor.device)
        kept = tensor.detach().index_select(dim, self.source.to(tensor.device))
        return new.index_copy_(dim, self.target.to(tensor.device), kept)


@dataclass(frozen=True)
class Resized:
    """A tensor of the model, its new value, and that of its gradient."""

    tensor: Tensor
    value: Tensor
    grad: Tensor | None

    def inverse(self) -> Resized:
        """What undoes `swap`, asked before it."""
        return Resized(self.tensor, self.tensor.data, self.tensor.grad)

    def swap(self) -> None:
        """Put the new value in place."""
        self.tensor.grad = None
        # Autograd's accumulator remembers the shape for as long as any graph (a loss that the caller still
        # holds) is alive, and would refuse the next backward. Passing through another dtype makes it forget.
        other = torch.float32 if self.tensor.dtype != torch.float32 else torch.float64
        self.tensor.data = torch.empty(0, dtype=other, device=self.tensor.device)
        self.tensor.data = self.value
        self.tensor.grad = self.grad
        torch.autograd.graph.increment_version(self.tensor)  # lest a graph from before go unnoticed


@dataclass
class Plan:
    """Everything a surgery will do, computed and checked; nothing has changed yet."""

    tensors: list[Resized] = field(default_factory=list)
    states: list[tuple[dict[Any, Any], Any, Tensor]] = field(default_factory=list)
    attributes: list[tuple[nn.Module | Axis, str, Any]] = field(default_factory=list)

    def commit(self) -> Callable[[], None]:
        """Put everything in place, or, if anything fails, leave all as it was.

        Returns:
            What undoes it: the same memory as before is put back.
        """
        undo: list[Callable[[], object]] = []
        try:
            for resized in self.tensors:
                undo.append(resized.inverse().swap)
                resized.swap()
            for state, key, value in self.states:
                undo.append(partial(state.__setitem__, key, state[key]))
                state[key] = value
            for owner, name, size in self.attributes:
                undo.append(partial(setattr, owner, name, getattr(owner, name)))
                setattr(owner, name, size)
        except BaseException as error:
            for step in reversed(undo):
                try:
                    step()
                except Exception as failure:  # what could not be set cannot be set back: the rest can
                    error.add_note(f"while undoing the surgery: {failure!r}")
            raise

        def back() -> None:
            for step in reversed(undo):
                step()

        return back


Initialize = Callable[[Sequence[Change], Mapping[Tensor, Tensor]], None]
"""Gets the changes and the new value of every resized tensor (by the tensor it replaces, already padded with
zeros), and writes the entries of the new units in place."""


def leave_silent(changes: Sequence[Change], values: Mapping[Tensor, Tensor]) -> None:
    """Leave every entry of the new units at zero: they neither hear nor speak."""


def plan(
    changes: Iterable[Change],
    optimizers: Sequence[Optimizer] = (),
    initialize: Initialize = leave_silent,
    copies: Sequence[Mapping[nn.Module, nn.Module]] = (),
) -> Plan:
    """Compute a surgery without touching anything.

    Args:
        changes: at most one for each width.
        optimizers: those whose state follows the parameters.
        initialize: writes the new units' entries.
        copies: copies of the model (such as an average of its weights) that change alike, each as what a
            module's copy is. New units begin there as they do in the model.

    Raises:
        StructureError: two slots describe one dimension differently, a tensor is not as long as its slot
            says, or an optimizer cannot follow.
    """
    changes = [*changes]
    for optimizer in optimizers:
        check_optimizer(optimizer)
    cuts = _cuts(changes)
    result = Plan()
    values: dict[Tensor, Tensor] = {}
    for tensor, along in cuts.items():
        value, grad = tensor.detach(), tensor.grad
        for dim, cut in along.items():
            value = cut.apply(value, dim, 0.0)
            grad = None if grad is None else cut.apply(grad.detach(), dim, 0.0)
        values[tensor] = value
        result.tensors.append(Resized(tensor, value, grad))
    initialize(changes, values)
    for tensor, along in cuts.items():
        for optimizer in optimizers:
            result.states += _state_cuts(optimizer, tensor, along, values[tensor])
    result.attributes += _attributes(changes)
    own = [*result.attributes]
    for copy in copies:
        slots = [slot for change in changes for slot in change.width.slots]
        for tensor, twin in {slot.tensor: getattr(copy[slot.module], slot.name) for slot in slots}.items():
            result.tensors.append(Resized(twin, _like(values[tensor], twin, cuts[tensor]), None))
        for owner, name, value in own:
            if isinstance(owner, nn.Module):
                result.attributes.append((copy[owner], name, value))
    return result


def _like(value: Tensor, twin: Tensor, along: Mapping[int, Cut]) -> Tensor:
    """What `twin` becomes: its own surviving entries, and the new ones of `value`."""
    new, survives = twin.detach(), torch.ones_like(twin, dtype=torch.bool)
    for dim, cut in along.items():
        new, survives = cut.apply(new, dim, 0.0), cut.apply(survives, dim, False)
    return torch.where(survives, new, value.to(new))


def operate(
    changes: Iterable[Change],
    optimizers: Sequence[Optimizer] = (),
    initialize: Initialize = leave_silent,
    copies: Sequence[Mapping[nn.Module, nn.Module]] = (),
) -> None:
    """Plan a surgery and carry it out: all of it, or, if anything fails, none. See `plan`."""
    changes = [*changes]
    plan(changes, optimizers, initialize, copies).commit()
    for module in {attribute.module for change in changes for attribute in change.width.attributes}:
        # cuDNN wants its weights in one piece of memory, which new tensors are not.
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()


def carry(state: Tensor, change: Change) -> Tensor:
    """Carry a hidden state `[..., size]` through a change: survivors bit-equal, new units zero.

    Raises:
        StructureError: the state's last dimension is not the size that the width had before the change.
    """
    if state.ndim == 0 or state.shape[-1] != change.size:
        raise StructureError(
            f"the state carried along width {change.width.name!r} must be [..., {change.size}], "
            f"got {[*state.shape]}: hand in the state of the update just made"
        )
    return Cut.of(change.move).apply(state, state.ndim - 1, 0.0)


def _moves(changes: Sequence[Change]) -> dict[Axis, Tensor]:
    """What becomes of the units of each axis."""
    moves: dict[Axis, Tensor] = {}
    for change in changes:
        if change.size != change.width.size:
            raise StructureError(
                f"a change was made for {change.size} units of width {change.width.name!r}, which has "
                f"{change.width.size} now: make it anew"
            )
        if change.width.axis in moves:
            raise StructureError(
                f"width {change.width.name!r} is changed twice in one operation: make one change of the two"
            )
        moves[change.width.axis] = change.move
    return moves


def _cuts(changes: Sequence[Change]) -> dict[Tensor, dict[int, Cut]]:
    """The cuts of each tensor, by dimension. A tensor that several modules share is cut once.

    One cut does what all changes do in a dimension, since several widths may lie along it.
    """
    moves = _moves(changes)
    made: dict[Layout, Cut] = {}
    cuts: dict[Tensor, dict[int, Cut]] = {}
    known: dict[tuple[Tensor, int], tuple[Width, Slot]] = {}
    for width in (change.width for change in changes):
        width.check_lengths()
        for slot in width.slots:
            other, same = known.setdefault((slot.tensor, slot.dim), (width, slot))
            if same.layout != slot.layout:
                raise StructureError(
                    f"{slot} belongs to width {width.name!r} and, as {same}, to {other.name!r}: "
                    "let one width cover both, or one layout mention both"
                )
            if slot.layout not in made:
                made[slot.layout] = Cut.of(sources(slot.layout, moves))
            cuts.setdefault(slot.tensor, {})[slot.dim] = made[slot.layout]
    return cuts


def _attributes(changes: Sequence[Change]) -> Iterator[tuple[nn.Module | Axis, str, Any]]:
    """The new sizes: of the axes, and in every attribute that tells them."""
    sizes = {change.width.axis: change.new_size for change in changes}
    for axis, size in sizes.items():
        yield axis, "size", size
    values: dict[tuple[nn.Module, str], Any] = {}
    for change in changes:
        for attribute in change.width.attributes:
            key = attribute.module, attribute.name
            now = values[key] if key in values else getattr(*key)
            values[key] = attribute.changed(now, sizes)
    for (module, name), value in values.items():
        yield module, name, value


def _state_cuts(
    optimizer: Optimizer, tensor: Tensor, along: Mapping[int, Cut], value: Tensor
) -> Iterator[tuple[dict[Any, Any], Any, Tensor]]:
    """The new value of each entry of the optimizer's state for `tensor`, which will be `value`."""
    check_state(optimizer, tensor)
    state = optimizer.state.get(tensor, {})
    for key, old in state.items():
        if not isinstance(old, Tensor):
            continue
        dims = state_dims(optimizer, key, old, tensor)
        new, survives = old, torch.ones_like(old, dtype=torch.bool)
        for dim, cut in along.items():
            if dims[dim]:
                new, survives = cut.apply(new, dim, 0.0), cut.apply(survives, dim, False)
        if new is not old:
            begin = initial_value(optimizer, key, tensor, value)
            begin = torch.as_tensor(begin, dtype=old.dtype, device=old.device)
            yield state, key, torch.where(survives, new, begin)
