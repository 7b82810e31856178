"""Copies of modules that `fully_shard` was called with, which PyTorch itself does not copy.

What `fully_shard` has put on a module (another class, hooks, its state) is taken off while `copy.deepcopy`
runs, and in the place of each sharded parameter the copy gets a whole one. It is then sharded as the module
is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from importlib import import_module
from operator import attrgetter
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from diffstruct.distributed.fsdp_params import groups_of, states_of
from diffstruct.distributed.shards import is_sharded, sharded_modules

Module = TypeVar("Module", bound=nn.Module)

_STATE = "_is_root", "_state_ctx.all_states", "_state_ctx.is_last_backward", "_states_to_forward_prefetch"
_GROUP = (
    *("mesh_info", "post_forward_mesh_info", "mp_policy", "offload_policy", "reduce_grads", "_module_fqn"),
    *("_module_to_pre_save_state_dict_hook_handle", "_module_to_pre_load_state_dict_hook_handle"),
)
_KEYS = "torch.distributed._composable.contract"
"""What this module uses that is not documented."""


@contextmanager
def undressed(modules: Iterable[Any]) -> Iterator[None]:
    """Within it, modules are what they were before `fully_shard` was called with them, but for parameters.

    Hooks on state dicts, which are harmless, stay.
    """
    keys = import_module(_KEYS)
    with ExitStack() as back:
        for module, state in [(module, module._get_fsdp_state()) for module in modules]:
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                before = list(hooks.items())
                own = [key for key, hook in before if getattr(hook, "__self__", None) is state]
                back.callback(_put_back, hooks, before)
                for key in own:
                    del hooks[key]
            for key in (keys.STATE_KEY, keys.REGISTRY_KEY):
                if key in vars(module):
                    back.callback(vars(module).__setitem__, key, vars(module).pop(key))
            kind = type(module)
            back.callback(setattr, module, "__class__", kind)
            module.__class__ = kind.__mro__[2]  # behind the one that was put on, and FSDPModule
        yield


def whole_copy(module: Module, memo: dict[int, Any]) -> Module:
    """A deep copy of a module, of which nothing is sharded; without shards, as `copy.deepcopy` makes it.

    Parameters that are sharded are zeros in it, since each process has some rows of them alone.

    Args:
        module: some modules within which `fully_shard` may have been called with.
        memo: as of `copy.deepcopy`; without tensors afterwards, so that it keeps no memory alive.
    """
    inside = sharded_modules(module)
    if not inside:
        return deepcopy(module, memo)
    known = {*memo}
    for each in module.parameters():
        if is_sharded(each) and id(each) not in memo:
            zeros = torch.zeros(each.shape, dtype=each.dtype, device=each.device)
            memo[id(each)] = nn.Parameter(zeros, requires_grad=each.requires_grad)
    with undressed(inside):
        copy = deepcopy(module, memo)
    kept = memo.pop(id(memo), [])
    for key in [key for key, value in memo.items() if key not in known and isinstance(value, Tensor)]:
        del memo[key]
    memo[id(memo)] = [each for each in kept if not isinstance(each, Tensor)]
    twins = dict(zip(module.modules(), copy.modules(), strict=True))
    for group in (group for each in inside for group in groups_of(each._get_fsdp_state())):
        _without_hooks(group, twins)
    return copy


def shard_like(copy: nn.Module, module: nn.Module) -> None:
    """Shard a copy of a module as the module is."""
    twins = dict(zip(module.modules(), copy.modules(), strict=True))
    for each in reversed(sharded_modules(module)):  # those within others first
        from torch.distributed.fsdp import fully_shard

        (group,) = groups_of(each._get_fsdp_state())
        reshard = group.post_forward_mesh_info is not None
        settings = {"mp_policy": group.mp_policy, "offload_policy": group.offload_policy}
        fully_shard(twins[each], mesh=group.mesh_info.mesh, reshard_after_forward=reshard, **settings)


def unlike_a_block(module: nn.Module) -> str | None:
    """Why a module cannot come and go as a block of a model that is sharded; None if it can."""
    groups = [group for state in states_of(module) for group in groups_of(state)]
    try:
        for state in states_of(module):
            attrgetter(*_STATE)(state)
        for group in groups:
            attrgetter(*_GROUP)(group)
        import_module(_KEYS)
    except (AttributeError, ImportError) as error:
        return f"the fully_shard of this version of PyTorch keeps what it knows otherwise ({error})"
    own = {id(fsdp_param.sharded_param) for group in groups for fsdp_param in group.fsdp_params}
    lost = [name for name, parameter in module.named_parameters() if id(parameter) not in own]
    if lost:
        return f"{lost[0]} in it is sharded together with what is outside: call fully_shard with each block"
    if any(not groups_of(state) for state in states_of(module)):
        return "fully_shard was called with a module in it that has no parameters of its own"
    if any(group.post_forward_mesh_info not in (None, group.mesh_info) for group in groups):
        return "it is resharded to some ranks after a run: say reshard_after_forward=True or False"
    return None


def settle(model: nn.Module) -> None:
    """Shard all that a run of a model has gathered and left so."""
    for module in sharded_modules(model):
        module.reshard()


@contextmanager
def reducing(model: nn.Module) -> Iterator[None]:
    """Within it, `backward` reduces gradients of what is sharded, whatever the user has set for now."""
    with ExitStack() as back:
        for state in states_of(model):
            flags = [(group, "reduce_grads") for group in groups_of(state)]
            for owner, name in (*flags, (state._state_ctx, "is_last_backward")):
                back.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, True)
        yield


def find_blocks_anew(model: nn.Module) -> None:
    """Blocks have come or gone: let the next run of a sharded model find out what it consists of, as its
    first run did."""
    states = states_of(model)
    for state in states:
        state._is_root = None
        state._state_ctx.all_states.clear()
        for prefetched in (state._states_to_forward_prefetch, state._states_to_backward_prefetch):
            prefetched[:] = [each for each in prefetched if each in states]
        for group in groups_of(state):
            group._module_fqn = None


def _without_hooks(group: Any, twins: dict[nn.Module, nn.Module]) -> None:
    """Take what loads and saves the parameters of a group off the copies of its modules."""
    for fsdp_param in group.fsdp_params:
        twin = twins[fsdp_param._module_info.module]
        twin._load_state_dict_post_hooks.pop(fsdp_param._post_load_hook_handle.id, None)
    for module, handle in group._module_to_pre_save_state_dict_hook_handle.items():
        twins[module]._state_dict_pre_hooks.pop(handle.id, None)
    for module, handle in group._module_to_pre_load_state_dict_hook_handle.items():
        twins[module]._load_state_dict_pre_hooks.pop(handle.id, None)


def _put_back(hooks: Any, before: list[tuple[Any, Any]]) -> None:
    hooks.clear()
    hooks.update(before)
