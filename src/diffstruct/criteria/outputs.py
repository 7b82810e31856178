"""The model's outputs in a training step, and the gradient of the loss there."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from diffstruct.criteria.loss import Loss, class_dim, recognise, rows_of
from diffstruct.distributed import Rows, reducing
from diffstruct.interrupts import allowed
from diffstruct.nn.outputs import tensors_in
from diffstruct.nn.undisturbed import SEED, undisturbed

MOST_ENTRIES = 1 << 17
"""Of outputs that are larger only some predictions are looked at, evenly spread."""


@dataclass
class Call:
    """One call of the model in a training step.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.
        autocast: device type, data type and whether automatic mixed precision was on.
        index: of the output that the loss is taken of.
        whole: that output; None of a call that was looked at in another process.

    Attributes:
        entries: of that output.
        dim: the dimension of the output along which one prediction lies.
        step: one in so many predictions is looked at.
        share: how many predictions there are for each that is looked at.
        outputs: those looked at, `[predictions, classes]`.
        gradient: of the loss, shaped alike.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    autocast: tuple[str, torch.dtype, bool]
    index: int
    whole: Tensor | None = None
    entries: int = field(init=False)
    dim: int = field(init=False)
    step: int = field(init=False)
    share: float = field(init=False)
    outputs: Tensor = field(init=False)
    gradient: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.entries = 0 if self.whole is None else self.whole.numel()

    def look(self, gradient: Tensor, most: int) -> None:
        """Take the gradient of the loss with respect to `whole`, and at most so many entries of both."""
        assert self.whole is not None
        values = self.whole if self.whole.ndim > 1 else self.whole[:, None]
        gradient = gradient.view_as(values)
        self.dim, self.step = class_dim(values, gradient), max(1, -(-values.numel() // most))
        self.outputs, self.gradient = rows_of(values, self.dim), rows_of(gradient, self.dim)
        every = len(self.outputs)
        if self.step > 1:
            self.outputs, self.gradient = self.outputs[:: self.step], self.gradient[:: self.step]
        self.share = every / max(len(self.outputs), 1)

    @property
    def finite(self) -> bool:
        """Whether outputs and gradient are."""
        return math.isfinite(self.outputs.sum().item() + self.gradient.sum().item())


def as_one(calls: Sequence[Call]) -> Call:
    """A call with all that was looked at in calls whose inputs are parts of one batch."""
    if len(calls) == 1:
        return calls[0]
    one = copy(calls[0])
    one.outputs = torch.cat([call.outputs for call in calls])
    one.gradient = torch.cat([call.gradient for call in calls])
    return one


class Outputs:
    """Watches the calls of a model, while `recording`.

    Args:
        called: what the user calls: the model, or what `torch.compile` made of it.
        model: the model itself, which `again` runs.
    """

    def __init__(self, called: nn.Module, model: nn.Module) -> None:
        self.called, self.model = called, model
        self.recording = False
        self.processes = 1
        """How many train the model, each of which looks at its part of the entries."""
        self.afterwards: weakref.WeakMethod[Callable[[], None]] | None = None
        """What to call as soon as `backward` is over, and all gradients are there."""
        self._calls: dict[int, Call] = {}
        self._parts = 1
        self._begun, self._forwards = True, 0
        self._handle: RemovableHandle | None = self._watch()

    @property
    def calls(self) -> list[Call]:
        """Of the last step that was recorded, in the order in which their gradients came."""
        return [*self._calls.values()]

    @property
    def batch(self) -> list[Call]:
        """The last call; of a state that several processes have saved, the calls that this one has of it."""
        return self.calls[-self._parts :]

    @property
    def seen(self) -> bool:
        """Whether there are calls, none of them of an empty batch, of which nothing can be told."""
        return bool(self._calls) and all(len(call.outputs) for call in self._calls.values())

    @property
    def finite(self) -> bool:
        """Whether there are calls, and all that was seen of them is finite."""
        return self.seen and all(call.finite for call in self._calls.values())

    def begin(self) -> None:
        """The calls that come are those of a new step; the others are kept until the first of them is
        there."""
        self._begun = False

    def clear(self) -> None:
        """Forget the calls."""
        self._calls, self._parts = {}, 1

    def put(self, calls: Sequence[Call]) -> None:
        """Have these calls, parts of one batch, as those of the last step."""
        self._parts = len(calls)
        self._calls = dict(enumerate(calls, -len(calls)))  # numbers that no call to come has

    def rows(self) -> Rows | None:
        """The outputs of the calls, and the gradient of the loss there; None if none was seen."""
        if not self._calls:
            return None
        *others, last = self._calls.values()
        outputs, gradient, calls = last.outputs, last.gradient, [last]
        if others:
            calls = [call for call in (*others, last) if call.outputs.shape[1] == outputs.shape[1]]
            outputs = torch.cat([call.outputs for call in calls])
            gradient = torch.cat([call.gradient for call in calls])
        every = sum(call.share * len(call.outputs) for call in calls)
        return Rows(outputs, gradient, last.dim, every, tuple(len(call.outputs) for call in calls))

    def loss(self, rows: Rows | None = None) -> Loss | None:
        """What the loss of the calls is; None if none was seen, or its gradient is zero or not finite, or the
        batch empty.

        Args:
            rows: of all processes; None: those that this one has.
        """
        rows = rows or self.rows()
        if rows is None or not len(rows.outputs):
            return None
        share = rows.every / len(rows.outputs)
        loss = recognise(rows.outputs, rows.gradient, rows.parts)
        if loss is None or share == 1:
            return loss
        if loss.kind == "other":
            return replace(loss, scale=loss.scale * share**0.5)
        return replace(loss, scale=loss.scale * share, predictions=loss.predictions * share)

    @torch.no_grad()
    def again(self, call: Call, training: bool = True, seed: int = SEED) -> Tensor:
        """The outputs of a call with the weights as they are now, `[predictions, classes]`, those looked at.

        Args:
            call: the call.
            training: in the modes that the modules are in; else in evaluation mode.
            seed: of what the model itself draws.
        """
        device, dtype, enabled = call.autocast
        with undisturbed(self.model, training, seed), torch.autocast(device, dtype, enabled), allowed():
            found = tensors_in(self.model(*call.args, **call.kwargs))[call.index]
        return rows_of(found if found.ndim > 1 else found[:, None], call.dim)[:: call.step]

    def gradients(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The gradients of the loss of the last call with respect to some tensors, with the present weights.

        The model must return what it returned then: only there the gradient of the loss is known.

        Args:
            tensors: parameters of the model.

        Returns:
            One for each, shaped like it.
        """
        with self._once_more() as (rows, gradient):
            grads = torch.autograd.grad(rows, [*tensors], gradient, allow_unused=True)
        return [
            torch.zeros_like(tensor) if grad is None else grad
            for tensor, grad in zip(tensors, grads, strict=True)
        ]

    def reduced_gradients(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The same where parameters are sharded: the mean over all processes, of which each has its rows.

        Only `backward` reduces gradients; those of all parameters are put back.
        """
        kept = [(parameter, parameter.grad) for parameter in self.model.parameters()]
        try:
            for parameter, _ in kept:
                parameter.grad = None
            with reducing(self.model), self._once_more() as (rows, gradient):
                torch.autograd.backward(rows, gradient)
            return [torch.zeros_like(each) if each.grad is None else each.grad for each in tensors]
        finally:
            for parameter, grad in kept:
                parameter.grad = grad

    @contextmanager
    def _once_more(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The rows of the last call that were looked at, run again, and the gradient of the loss there."""
        call, recording = self.calls[-1], self.recording
        device, dtype, enabled = call.autocast
        self.recording = False
        try:
            with (
                undisturbed(self.model, training=True),
                torch.enable_grad(),
                torch.autocast(device, dtype, enabled),
                allowed(),
            ):
                found = tensors_in(self.model(*call.args, **call.kwargs))[call.index]
                rows = rows_of(found if found.ndim > 1 else found[:, None], call.dim)[:: call.step]
                yield rows, call.gradient.to(rows)
        finally:
            self.recording = recording

    def detach(self) -> None:
        """Watch no more."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None
        self.clear()

    def _watch(self) -> RemovableHandle:
        return self.called.register_forward_hook(_Hook(self), with_kwargs=True)

    def _expect(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        """Record the gradients that will come; of several outputs, that of the largest which has one."""
        self._forwards += 1
        # No graph is to be kept alive.
        args = tuple(each.detach() if type(each) is Tensor else _detached(each) for each in args)
        kwargs = _detached(kwargs) if kwargs else kwargs
        for index, outputs in enumerate(tensors_in(result)):
            if outputs.requires_grad and outputs.ndim:
                kind = outputs.device.type
                autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
                call = Call(args, kwargs, autocast, index, outputs.detach())
                register: Callable[[Any], RemovableHandle] = outputs.register_hook
                register(self._recorder(self._forwards, call))

    def _recorder(self, forward: int, call: Call) -> Callable[[Tensor | None], None]:
        mine = weakref.ref(self)

        def record(gradient: Tensor | None) -> None:
            owner = mine()
            # None: an output that the loss does not look at, of a function whose other outputs it does.
            if owner is None or not owner.recording or gradient is None:
                return
            if not owner._begun:
                owner.clear()
                owner._begun = True
            known = owner._calls.get(forward)
            if known is None or known.entries <= call.entries:
                call.look(gradient.detach(), MOST_ENTRIES // owner.processes)
                owner._calls[forward] = call
            afterwards = None if owner.afterwards is None else owner.afterwards()
            if afterwards is not None:
                # Once more from there, behind what else is called at the end: gradients are reduced then.
                queue: Any = torch.autograd.Variable._execution_engine.queue_callback
                queue(partial(queue, afterwards))

        return record

    def __getstate__(self) -> dict[str, Any]:
        """Without hooks, which belong to the model."""
        return {**vars(self), "_handle": self._handle is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy watches the copied model, which has come with a hook that does nothing."""
        vars(self).update(state)
        hooks = self.called._forward_hooks
        for key in [key for key, hook in hooks.items() if isinstance(hook, _Hook) and hook.idle]:
            del hooks[key]
            self.called._forward_hooks_with_kwargs.pop(key, None)
        self._handle = self._watch() if state["_handle"] else None


def _detached(tree: Any) -> Any:
    return tree_map_only(Tensor, Tensor.detach, tree)


class _Hook:
    """Lets what watches a model see its calls. Copies and pickles of the model alone are not watched.

    Args:
        owner: what watches; None for nothing. The model must not keep it alive.
    """

    def __init__(self, owner: Outputs | None) -> None:
        self._owner = None if owner is None else weakref.ref(owner)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if torch.compiler.is_compiling() or self._owner is None or not torch.is_grad_enabled():
            return
        owner = self._owner()
        if owner is not None and owner.recording and owner.called is module:
            owner._expect(args, kwargs, result)

    @property
    def idle(self) -> bool:
        """Whether this is the hook of a copy, which does nothing."""
        return self._owner is None

    def __reduce__(self) -> tuple[type[_Hook], tuple[None]]:
        return _Hook, (None,)
