"""Models that `fully_shard` has sharded, and what of them is made whole for a change.

Between two uses, `fully_shard` keeps of each parameter some rows on each process, as a `DTensor` that the
optimizer trains. A change needs whole tensors: one after the other, the parameters that it touches are
gathered, with their gradients and optimizer state, changed as in one process, on all processes alike, and
sharded again. The parameters stay the same objects.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from operator import attrgetter
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from diffstruct.distributed.fsdp_params import Back, Place, groups_of, sharded_like, states_of
from diffstruct.distributed.sharded_blocks import settle, undressed
from diffstruct.distributed.shards import is_sharded, sharded_modules, whole
from diffstruct.errors import StructureError

_FSDP_PARAM = (
    *("_module_info", "mesh_info", "post_forward_mesh_info", "device", "mp_policy", "sharded_param"),
    *("_param_fqn", "_post_load_hook_handle", "_setattr_on_modules", "init_dtype_attrs"),
)
_GROUP = "fsdp_params", "modules", "offload_policy"
"""What this module and `fsdp_params` use that is not documented."""


class Work(Protocol):
    """What becomes of parameters, each of which is whole for a moment. Nothing in it waits for others."""

    def beside(self, tensor: Tensor) -> Sequence[Tensor]:
        """Other sharded tensors that `value` needs whole."""

    def value(self, tensor: Tensor, old: Tensor, beside: Sequence[Tensor]) -> Tensor:
        """The new value of a parameter."""

    def gradient(self, tensor: Tensor, old: Tensor) -> Tensor:
        """The new value of its gradient."""

    def state(self, tensor: Tensor, optimizer: Optimizer, value: Tensor, key: Any, old: Tensor) -> Tensor:
        """The new value of an entry of its optimizer state; `value` is that of the parameter."""


class Sharding:
    """How a model is sharded.

    Args:
        model: some modules of which `fully_shard` was called with.

    Raises:
        StructureError: in a way that cannot follow changes of structure.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        modules = sharded_modules(model)
        try:
            places = self._places()
            meshes = {*(place.fsdp_param.mesh_info.mesh for place in places)}
            why = next((why for place in places if (why := _refused(place))), None)
            for place in places:
                attrgetter(*_FSDP_PARAM)(place.fsdp_param)
                attrgetter(*_GROUP)(place.group)
        except AttributeError as error:
            raise StructureError(
                f"the fully_shard of this version of PyTorch keeps parameters otherwise ({error}): PyTorch "
                "2.6 to 2.13 can follow changes of structure"
            ) from error
        if why is None and len(meshes) > 1:
            why = "with several meshes"
        if why is None and modules and model is not modules[0]:
            why = "in a part of the model only: call it with the whole model, too"
        if why is not None:
            raise StructureError(f"fully_shard {why} cannot follow changes of structure")
        self.mesh: Any = next(iter(meshes), None)
        self.gathering = False
        """Whether parameters are being gathered; it stays so if that fails, while other processes wait."""

    def _places(self) -> list[Place]:
        """As they are now: blocks may have come or gone."""
        groups = [group for state in states_of(self._model) for group in groups_of(state)]
        return [Place(group, index) for group in groups for index in range(len(group.fsdp_params))]

    def managed(self) -> set[int]:
        """The ids of the parameters that are sharded."""
        return {id(place.fsdp_param.sharded_param) for place in self._places()}

    def settle(self) -> None:
        """Shard all that a run of the model has gathered and left so."""
        settle(self._model)

    @contextmanager
    def plain(self) -> Iterator[None]:
        """The whole model as if it had never been sharded."""
        with ExitStack() as back:
            back.enter_context(self._whole())
            back.enter_context(undressed(sharded_modules(self._model)))
            yield

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Within it, all parameters are whole and plain, and no optimizer knows them."""
        self.settle()
        made = []
        for place in self._places():
            sharded = place.fsdp_param.sharded_param
            parameter = nn.Parameter(self.gathered(sharded), requires_grad=sharded.requires_grad)
            parameter.grad = None if sharded.grad is None else self.gathered(sharded.grad)
            made.append((place, parameter))
        with ExitStack() as failed:
            for place, parameter in made:
                failed.callback(place.fsdp_param._setattr_on_modules, place.fsdp_param.sharded_param)
                place.fsdp_param._setattr_on_modules(parameter)
            yield
            for place, parameter in made:
                new = place.anew(parameter)
                failed.callback(place.drop, new)
                if parameter.grad is not None:
                    new.sharded_param.grad = sharded_like(parameter.grad, new.sharded_param)
                failed.callback(place.put(new))
            failed.pop_all()

    @torch.no_grad()
    def gathered(self, tensor: Tensor) -> Tensor:
        """All rows of a sharded tensor, in memory of its own; all processes have to ask for it."""
        self.gathering = True
        found: Tensor = whole(tensor.detach())
        self.gathering = False
        return found

    def in_turn(self, tensors: Sequence[Tensor], optimizers: Sequence[Optimizer], work: Work) -> Back:
        """Change parameters one after the other, on all processes alike.

        Value, gradient and optimizer state are gathered one by one, changed, and sharded again, before the
        next is gathered. Where that fails on one process alone, it goes on taking part in what the others
        wait for, and raises at the end.

        Args:
            tensors: the sharded parameters.
            optimizers: that train them.
            work: what becomes of them.

        Returns:
            A function that undoes it: this process gets the shards back that it had.
        """
        self.settle()
        places = {id(place.fsdp_param.sharded_param): place for place in self._places()}
        attempt = _Attempt()
        with ExitStack() as undo:
            for tensor in tensors:
                self._turn(places[id(tensor)], optimizers, work, attempt, undo)
            if attempt.error is not None:
                raise attempt.error
            return undo.pop_all().close

    def _turn(
        self, place: Place, optimizers: Sequence[Optimizer], work: Work, attempt: _Attempt, undo: ExitStack
    ) -> None:
        tensor = place.fsdp_param.sharded_param
        old, others = self.gathered(tensor), [self.gathered(each) for each in work.beside(tensor)]
        value = attempt(work.value, tensor, old, others)
        del old, others  # memory that what comes next needs
        new = attempt(place.anew, value)
        if new is not None:
            undo.callback(place.drop, new)

        def changed(each: Tensor, make: Callable[[Tensor], Tensor]) -> Any:
            whole_one = self.gathered(each)
            return attempt(lambda: sharded_like(make(whole_one), new.sharded_param))

        gradient = None if tensor.grad is None else changed(tensor.grad, partial(work.gradient, tensor))
        states = []
        for optimizer in optimizers:
            if (state := optimizer.state.get(tensor)) is not None:
                entry = partial(work.state, tensor, optimizer, value)
                after = {
                    key: changed(each, partial(entry, key)) if is_sharded(each) else each
                    for key, each in state.items()
                }
                states.append((optimizer, after))
        if attempt.error is None:
            new.sharded_param.grad = gradient
            attempt(_put, place, new, states, undo)


class _Attempt:
    """What may fail on this process alone: behind a failure nothing more is tried."""

    error: BaseException | None = None

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function returns; None if it, or anything before it, has failed."""
        if self.error is None:
            try:
                return function(*args)
            except BaseException as error:
                traceback.clear_frames(error.__traceback__)  # they have whole tensors
                self.error = error
        return None


def _put(place: Place, new: Any, states: Sequence[tuple[Optimizer, Any]], undo: ExitStack) -> None:
    """Put what shards a parameter in place, and the optimizers' state of it."""
    undo.callback(place.put(new))
    tensor = place.fsdp_param.sharded_param
    for optimizer, state in states:
        undo.callback(optimizer.state.__setitem__, tensor, optimizer.state[tensor])
        optimizer.state[tensor] = state


def _refused(place: Place) -> str | None:
    fsdp_param, group = place.fsdp_param, place.group
    if fsdp_param.is_dtensor or fsdp_param.sharded_param.device_mesh.ndim > 1:
        return "with tensor parallelism, or several dimensions of a mesh,"
    if type(fsdp_param.mesh_info).__name__ != "FSDPMeshInfo":
        return "that replicates parameters"
    if getattr(fsdp_param, "fsdp_placement", None) is not None and fsdp_param.fsdp_placement.dim != 0:
        return "along another dimension than the first"
    if fsdp_param.offload_to_cpu:
        return "with parameters that are offloaded to the CPU"
    if hasattr(fsdp_param._sharded_local_tensor, "fsdp_pre_all_gather"):
        return "with tensors that say themselves how they are gathered"
    if getattr(group, "gradient_divide_factor", None) is not None:
        return "with a factor of its own on gradients"
    if len(group.modules) > 1:
        return "of several modules in one call"
    return None
