"""PyTorch's own objects that shard one parameter each, `FSDPParam`, made anew for another size of it.

`fully_shard` has no public way to do that. What is used here of its insides is listed in `sharding.py`, which
looks whether this version of PyTorch has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from diffstruct.distributed.shards import sharded_modules

Back: TypeAlias = Callable[[], object]


@dataclass(frozen=True)
class Place:
    """A parameter that is sharded: the group of those that are gathered together, and its place there."""

    group: Any
    index: int

    @property
    def fsdp_param(self) -> Any:
        """PyTorch's own object that shards the parameter."""
        return self.group.fsdp_params[self.index]

    def anew(self, value: Tensor) -> Any:
        """An object like the one that shards the parameter, for another value of it, of any size.

        The modules have its sharded parameter then, until `put` gives them the one that they had, or `drop`.
        """
        old: Any = self.fsdp_param
        new = type(old)(
            nn.Parameter(value.detach().contiguous(), requires_grad=old.sharded_param.requires_grad),
            old._module_info,
            old.mesh_info,
            old.post_forward_mesh_info,
            old.device,
            None,
            old.mp_policy,
            self.group.offload_policy,
        )
        new._param_fqn = old._param_fqn
        if hasattr(old, "orig_dtype"):  # known since the first run
            new.init_dtype_attrs(old.mp_policy)
        return new

    def drop(self, new: Any) -> None:
        """Take away an object of `anew` that is not used."""
        new._post_load_hook_handle.remove()
        self.fsdp_param._setattr_on_modules(self.fsdp_param.sharded_param)

    def put(self, new: Any) -> Back:
        """Put an object of `anew` in place; the sharded parameter is the same object as before.

        Returns:
            A function that undoes it: it puts the same memory as before back.
        """
        old: Any = self.fsdp_param
        same, other = old.sharded_param, new.sharded_param

        def put(fsdp_param: Any, before: Any) -> None:
            swap_values(same, other)
            fsdp_param.sharded_param = same
            for each in (before, fsdp_param):  # what each does after a state dict is loaded
                each._post_load_hook_handle.remove()
            register = fsdp_param._module_info.module.register_load_state_dict_post_hook
            fsdp_param._post_load_hook_handle = register(lambda *_: fsdp_param.reset_sharded_param())
            fsdp_param._setattr_on_modules(same)
            self.group.fsdp_params[self.index] = fsdp_param

        def back() -> None:
            put(old, new)

        put(new, old)
        return back


def swap_values(one: Any, other: Any) -> None:
    """Each of two sharded parameters gets the value and gradient of the other; both stay the same objects.

    `torch.utils.swap_tensors` refuses this where anything has a weak reference to one of them, as a
    profiler has, and takes along what people have noted on a parameter.
    """
    values, gradients = (one.detach(), other.detach()), (one.grad, other.grad)
    for tensor, value, gradient in ((one, values[1], gradients[1]), (other, values[0], gradients[0])):
        tensor.grad = None
        tensor.data = _nothing_like(tensor)
        tensor.data = value
        tensor._local_tensor, tensor._spec = value._local_tensor, value._spec
        tensor.grad = gradient
        torch.autograd.graph.increment_version(tensor)


def _nothing_like(tensor: Any) -> Tensor:
    """Nothing, sharded alike, in another dtype: passing through it, a tensor loses autograd's accumulator,
    which remembers its shape, and would refuse the next backward while a loss from before is alive."""
    from torch.distributed.tensor import DTensor

    dtype = torch.float32 if tensor.dtype != torch.float32 else torch.float64
    rows = torch.empty(0, *tensor.shape[1:], dtype=dtype, device=tensor.device)
    return DTensor.from_local(rows, tensor.device_mesh, tensor.placements, run_check=False)


def states_of(model: nn.Module) -> list[Any]:
    """The states of the modules that `fully_shard` was called with."""
    return [*dict.fromkeys(module._get_fsdp_state() for module in sharded_modules(model))]


def groups_of(state: Any) -> list[Any]:
    """The groups of parameters that are gathered together, of the state of a module that is sharded."""
    several = getattr(state, "_fsdp_param_groups", None)
    if several is not None:
        return [*several]
    return [] if state._fsdp_param_group is None else [state._fsdp_param_group]


def sharded_like(value: Any, sharded: Any) -> Any:
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
