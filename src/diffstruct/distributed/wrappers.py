"""What wraps a model that several processes train: which of it is known, and what it needs after surgery."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from diffstruct.distributed.reducer import check, rebuild
from diffstruct.distributed.sharding import Sharding
from diffstruct.distributed.shards import is_sharded, sharded_modules
from diffstruct.errors import StructureError


def unwrapped(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The model itself, and what its calls are seen at: the model, or what `torch.compile` made of it.

    Args:
        model: as the user has it: compiled, in a `DistributedDataParallel`, both, or neither.

    Raises:
        StructureError: it is in a wrapper that cannot follow changes of structure.
    """
    called = None
    while True:
        inner = getattr(model, "_orig_mod", None)  # what torch.compile has wrapped
        if isinstance(inner, nn.Module):
            called = called or model
            model = inner
        elif isinstance(model, DistributedDataParallel):
            model = model.module
        else:
            break
    sharded = Sharding(model).managed() if sharded_modules(model) else set()
    for name, module in model.named_modules():
        why = _refused(module, sharded)
        if why is not None:
            place = f" (module {name!r})" if name else ""
            raise StructureError(
                f"the structure of a {type(module).__name__}{place} cannot be learned: {why}"
            )
    return model, called or model


def ddp_around(model: nn.Module) -> DistributedDataParallel | None:
    """The `DistributedDataParallel` that a model, or what it is a part of, is wrapped in; None if in none.

    It may be made after the structure, and knows the model, but not the other way round: so all that are
    alive are looked at.

    Raises:
        StructureError: there are several.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return None
    found = _alive(model)
    if len(found) > 1:
        gc.collect()  # one that was replaced, and is not used any more
        found = _alive(model)
    if len(found) > 1:
        raise StructureError(
            f"{len(found)} DistributedDataParallel objects wrap this {type(model).__name__}: keep one"
        )
    return found[0] if found else None


@contextmanager
def following(model: nn.Module) -> Iterator[None]:
    """Within it parameters may change: what reduces their gradients follows at the end, whatever happens.

    Also parameters that end as they were: surgery that was tried and undone renews their accumulators, which
    the hooks of a `DistributedDataParallel` hang on.
    """
    with plain(model):
        try:
            yield
        finally:
            ddp = ddp_around(model)
            if ddp is not None:
                check(ddp)
                rebuild(ddp)


@contextmanager
def plain(model: nn.Module) -> Iterator[None]:
    """Within it a model that is sharded is whole on each process, as if it had never been sharded."""
    with Sharding(model).plain() if sharded_modules(model) else nullcontext():
        yield


def covers(ddp: DistributedDataParallel, model: nn.Module) -> list[str]:
    """The names of the trained parameters of a model whose gradients a wrapper does not reduce."""
    reduced = {
        id(parameter)
        for name, parameter in ddp.module.named_parameters(remove_duplicate=False)
        if name not in ddp.parameters_to_ignore
    }
    return [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in reduced]


def _alive(model: nn.Module) -> list[DistributedDataParallel]:
    every = [each for each in gc.get_objects() if issubclass(type(each), DistributedDataParallel)]
    return [ddp for ddp in every if any(module is model for module in ddp.modules())]


def _refused(module: nn.Module, sharded: set[int]) -> str | None:
    """Why a module, itself a wrapper, cannot follow; None if it is no wrapper, or a known one."""
    if isinstance(module, DistributedDataParallel):
        return "only a part of the model is wrapped: wrap the whole model in one DistributedDataParallel"
    if isinstance(module, nn.DataParallel):
        return "it copies the model to each device at each call; use DistributedDataParallel"
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is not None and isinstance(module, fsdp.FullyShardedDataParallel):
        return (
            "it keeps all parameters in flat ones of a size that is fixed when it is made; use "
            "DistributedDataParallel"
        )
    if type(module).__module__.split(".")[0] == "deepspeed":
        return (
            "it keeps parameters and optimizer state in flat buffers of a size that is fixed when it is "
            "made; use DistributedDataParallel"
        )
    return _tensor_parallel(module, sharded)


def _tensor_parallel(module: nn.Module, sharded: set[int]) -> str | None:
    for name, parameter in module._parameters.items():
        if parameter is not None and is_sharded(parameter) and id(parameter) not in sharded:
            return (
                f"its parameter {name!r} is a DTensor, as tensor parallelism makes them, whose sizes are "
                "fixed when it is distributed; learn the structure with DistributedDataParallel or "
                "fully_shard, and distribute the finished model"
            )
    return None
