"""Models that `fully_shard` has sharded, and what of them is made whole for a change.

Between two uses, `fully_shard` keeps of each parameter some rows on each process, as a `DTensor` that the
optimizer trains. Surgery needs whole tensors: those that it touches are gathered, take the place of the
sharded ones in the model and in the optimizers, with their state, are changed as in one process, on all
processes alike, and are sharded again. The parameters stay the same objects.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from diffstruct.distributed.shards import whole
from diffstruct.errors import StructureError

Back: TypeAlias = Callable[[], object]
_Made: TypeAlias = Callable[[Any], Any]

_KEEPER = (
    *("_module_info", "mesh_info", "post_forward_mesh_info", "device", "mp_policy", "sharded_param"),
    *("_param_fqn", "_post_load_hook_handle", "_setattr_on_modules", "init_dtype_attrs"),
)
_GROUP = "fsdp_params", "modules", "offload_policy"
"""What this module uses that is not documented."""


@dataclass(frozen=True)
class _Place:
    """A parameter that is sharded: the group of those that are gathered together, and its place there."""

    group: Any
    index: int

    @property
    def keeper(self) -> Any:
        """PyTorch's own object that shards the parameter."""
        return self.group.fsdp_params[self.index]


def sharded_modules(model: nn.Module) -> list[Any]:
    """The modules that `fully_shard` was called with."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(fsdp, "FSDPModule", None)
    return [] if kind is None else [module for module in model.modules() if isinstance(module, kind)]


class Sharding:
    """How a model is sharded.

    Args:
        model: some modules of which `fully_shard` was called with.

    Raises:
        StructureError: in a way that cannot follow changes of structure.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = sharded_modules(model)
        try:
            self._states = [*dict.fromkeys(module._get_fsdp_state() for module in self.modules)]
            groups = [group for state in self._states for group in _groups(state)]
            self._places = [
                _Place(group, index) for group in groups for index in range(len(group.fsdp_params))
            ]
            meshes = {*(place.keeper.mesh_info.mesh for place in self._places)}
            why = next((why for place in self._places if (why := _refused(place))), None)
            for place in self._places:
                attrgetter(*_KEEPER)(place.keeper)
                attrgetter(*_GROUP)(place.group)
        except AttributeError as error:
            raise StructureError(
                f"the fully_shard of this version of PyTorch keeps parameters otherwise ({error}): PyTorch "
                "2.6 to 2.13 can follow changes of structure"
            ) from error
        if why is None and len(meshes) > 1:
            why = "with several meshes"
        if why is None and self.modules and model is not self.modules[0]:
            why = "in a part of the model only: call it with the whole model, too"
        if why is not None:
            raise StructureError(f"fully_shard {why} cannot follow changes of structure")
        self.mesh: Any = next(iter(meshes), None)
        self.gathering = False
        """Whether parameters are being gathered; it stays so if that fails, while other processes wait."""

    def managed(self) -> set[int]:
        """The ids of the parameters that are sharded."""
        return {id(place.keeper.sharded_param) for place in self._places}

    def settle(self) -> None:
        """Shard all that a run of the model has gathered and left so."""
        for module in self.modules:
            module.reshard()

    @contextmanager
    def plain(self) -> Iterator[None]:
        """The whole model as if it had never been sharded."""
        with ExitStack() as back:
            back.enter_context(self.whole(None))
            for module, state in ((module, module._get_fsdp_state()) for module in self.modules):
                for hooks in (module._forward_pre_hooks, module._forward_hooks):
                    before = list(hooks.items())
                    own = [key for key, hook in before if getattr(hook, "__self__", None) is state]
                    back.callback(_put_back, hooks, before)
                    for key in own:
                        del hooks[key]
            yield

    @contextmanager
    def whole(self, tensors: Iterable[Tensor] | None, optimizers: Sequence[Optimizer] = ()) -> Iterator[Back]:
        """Within it, parameters are whole and plain, also to the optimizers; sharded again at the end.

        Args:
            tensors: the sharded parameters that are meant; None: all.
            optimizers: that train them.

        Returns:
            A function that undoes, once they are sharded again, all that was done to them.
        """
        self.settle()
        wanted = None if tensors is None else {id(tensor) for tensor in tensors}
        places = [
            place for place in self._places if wanted is None or id(place.keeper.sharded_param) in wanted
        ]
        self.gathering = True  # all of it before anything changes
        made = [(place, _gathered(place.keeper.sharded_param)) for place in places]
        states = [_states(place.keeper.sharded_param, optimizers, whole) for place in places]
        self.gathering = False
        with ExitStack() as failed:
            undo = ExitStack()
            failed.callback(undo.close)
            for (place, parameter), state in zip(made, states, strict=True):
                sharded = place.keeper.sharded_param
                undo.callback(place.keeper._setattr_on_modules, sharded)
                undo.callback(_remember(optimizers, sharded, parameter))
                place.keeper._setattr_on_modules(parameter)
                _exchange(optimizers, sharded, parameter, state)
            yield undo.close
            for place, parameter in made:
                undo.callback(_shard(place, parameter))
                sharded = place.keeper.sharded_param
                own = _states(parameter, optimizers, partial(_like, sharded=sharded))
                _exchange(optimizers, parameter, sharded, own)
            failed.pop_all()


def _groups(state: Any) -> list[Any]:
    several = getattr(state, "_fsdp_param_groups", None)
    if several is not None:
        return [*several]
    return [] if state._fsdp_param_group is None else [state._fsdp_param_group]


def _refused(place: _Place) -> str | None:
    keeper, group = place.keeper, place.group
    if keeper.is_dtensor or keeper.sharded_param.device_mesh.ndim > 1:
        return "with tensor parallelism, or several dimensions of a mesh,"
    if type(keeper.mesh_info).__name__ != "FSDPMeshInfo":
        return "that replicates parameters"
    if getattr(keeper, "fsdp_placement", None) is not None and keeper.fsdp_placement.dim != 0:
        return "along another dimension than the first"
    if keeper.offload_to_cpu:
        return "with parameters that are offloaded to the CPU"
    if hasattr(keeper._sharded_local_tensor, "fsdp_pre_all_gather"):
        return "with tensors that say themselves how they are gathered"
    if getattr(group, "gradient_divide_factor", None) is not None:
        return "with a factor of its own on gradients"
    if len(group.modules) > 1:
        return "of several modules in one call"
    return None


def _put_back(hooks: Any, before: Sequence[tuple[Any, Any]]) -> None:
    hooks.clear()
    hooks.update(before)


def _gathered(sharded: Any) -> nn.Parameter:
    """The whole of a parameter, and of its gradient."""
    with torch.no_grad():
        parameter = nn.Parameter(whole(sharded.detach()), requires_grad=sharded.requires_grad)
        parameter.grad = None if sharded.grad is None else whole(sharded.grad)
    return parameter


def _shard(place: _Place, parameter: nn.Parameter) -> Back:
    """Shard a parameter that has been whole; the sharded one is the same object as before.

    Returns:
        A function that undoes it: it puts the same memory as before back.
    """
    old, group = place.keeper, place.group
    gradient, parameter.grad = parameter.grad, None
    new = _keeper(old, group, parameter.detach().contiguous(), parameter.requires_grad)
    if gradient is not None:
        new.sharded_param.grad = _like(gradient, new.sharded_param)
    same, other = old.sharded_param, new.sharded_param

    def put(keeper: Any, before: Any) -> None:
        swap: Any = torch.utils.swap_tensors
        swap(same, other)
        keeper.sharded_param = same
        for each in (before, keeper):  # what each does after a state dict is loaded
            each._post_load_hook_handle.remove()
        register = keeper._module_info.module.register_load_state_dict_post_hook
        keeper._post_load_hook_handle = register(lambda *_: keeper.reset_sharded_param())
        keeper._setattr_on_modules(same)
        group.fsdp_params[place.index] = keeper

    def back() -> None:
        put(old, new)

    put(new, old)
    return back


def _keeper(old: Any, group: Any, data: Tensor, trained: bool) -> Any:
    """An object like the one that has sharded a parameter, for other data."""
    new = type(old)(
        nn.Parameter(data, requires_grad=trained),
        old._module_info,
        old.mesh_info,
        old.post_forward_mesh_info,
        old.device,
        None,
        old.mp_policy,
        group.offload_policy,
    )
    new._param_fqn = old._param_fqn
    if hasattr(old, "orig_dtype"):  # known since the first run
        new.init_dtype_attrs(old.mp_policy)
    return new


def _like(value: Any, sharded: Any) -> Any:
    """What is shaped like a whole parameter, sharded as the parameter is; anything else as it is."""
    if not isinstance(value, Tensor) or value.ndim == 0 or value.shape != sharded.shape:
        return value
    from torch.distributed.tensor import DTensor

    mesh = sharded.device_mesh
    rows = [*value.detach().chunk(mesh.size())]
    rank = mesh.get_local_rank()
    own = rows[rank].clone() if rank < len(rows) else value.new_empty(0, *value.shape[1:])
    return DTensor.from_local(
        own, mesh, sharded.placements, run_check=False, shape=value.shape, stride=value.contiguous().stride()
    )


def _states(parameter: Tensor, optimizers: Sequence[Optimizer], made: _Made) -> list[dict[str, Any] | None]:
    """What is made of all that each optimizer has of a parameter; None of one that has nothing."""
    states = (each.state.get(parameter, None) for each in optimizers)
    return [None if state is None else {key: made(value) for key, value in state.items()} for state in states]


def _remember(optimizers: Sequence[Optimizer], sharded: Tensor, whole: Tensor) -> Back:
    """What undoes that optimizers train the whole of a parameter in its place."""
    groups = [(group, group["params"]) for each in optimizers for group in each.param_groups]
    states = [(each.state, each.state[sharded]) for each in optimizers if sharded in each.state]

    def back() -> None:
        for group, parameters in groups:
            group["params"] = parameters
        for state, value in states:
            state.pop(whole, None)
            state[sharded] = value

    return back


def _exchange(
    optimizers: Sequence[Optimizer], old: Tensor, new: Tensor, states: Sequence[dict[str, Any] | None]
) -> None:
    """Let optimizers train one parameter in the place of another, with these states."""
    for optimizer, state in zip(optimizers, states, strict=True):
        for group in optimizer.param_groups:
            group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
        if state is not None:
            del optimizer.state[old]
            optimizer.state[new] = state
