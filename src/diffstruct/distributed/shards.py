"""Tensors of which each process has some rows: which these are, and what can be done to the rows alone."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a `DTensor`."""
    tensors = sys.modules.get("torch.distributed.tensor")  # if not there, nothing of it has been used
    return tensors is not None and isinstance(tensor, tensors.DTensor)


def sharded_modules(model: nn.Module) -> list[Any]:
    """The modules that `fully_shard` was called with."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(fsdp, "FSDPModule", None)
    return [] if kind is None else [module for module in model.modules() if isinstance(module, kind)]


def local(tensor: Tensor) -> Tensor:
    """The rows that this process has, in the same memory; all of them of a plain tensor."""
    if not is_sharded(tensor):
        return tensor.detach()
    sharded: Any = tensor
    rows: Tensor = sharded.detach().to_local()
    return rows


def whole(value: Any) -> Any:
    """All rows of a tensor that is sharded, in memory of its own; anything else as it is.

    All processes have to ask for it at the same time.
    """
    if not is_sharded(value):
        return value
    from torch.distributed.tensor import Shard

    if value.placements == (Shard(0),):
        return _all_rows(value)
    found: Tensor = value.full_tensor()
    own: Tensor = value.to_local()
    shared = found.untyped_storage().data_ptr() == own.untyped_storage().data_ptr()  # as on a single process
    return found.clone() if shared else found


@torch.no_grad()
def _all_rows(value: Any) -> Tensor:
    """All rows of a tensor that is sharded by rows, the last ones of which may be fewer, or none.

    Like `full_tensor`, which makes the whole of it three times over.
    """
    own, mesh = local(value), value.device_mesh
    each = -(-len(value) // mesh.size())
    found = own.new_empty(mesh.size() * each, *own.shape[1:])
    if len(own) < each:
        own = torch.cat([own, own.new_zeros(each - len(own), *own.shape[1:])])
    renamed = hasattr(dist, "all_gather_single")  # as of PyTorch 2.13
    gather = dist.all_gather_single if renamed else dist.all_gather_into_tensor
    gather(found, own.contiguous(), group=mesh.get_group())
    return found[: len(value)]


def put_rows(tensor: Tensor, value: Tensor) -> None:
    """Write into a tensor what the whole of it is to be: on each process the rows that it has."""
    begin, own = first_row(tensor), local(tensor)
    own.copy_(value[begin : begin + len(own)])


def first_row(tensor: Tensor) -> int:
    """The place in the whole tensor of the first row that this process has."""
    if not is_sharded(tensor):
        return 0
    sharded: Any = tensor
    size, rank = int(sharded.device_mesh.size()), int(sharded.device_mesh.get_local_rank())
    each = -(-len(tensor) // size)
    return min(rank * each, len(tensor))


def sample(tensor: Tensor, step: int) -> Tensor:
    """One in `step` entries of a tensor, flattened, of which this process has those that lie in its rows.

    Put together, those of all processes are the ones that a process with the whole tensor has.
    """
    flat = local(tensor).reshape(-1)
    return flat[-_first_entry(tensor) % step :: step] if step > 1 else flat


def sample_place(tensor: Tensor, step: int) -> tuple[int, int]:
    """The place of this process's own part of a `sample` in that of all processes, and how large this is."""
    return -(-_first_entry(tensor) // step), -(-tensor.numel() // step)


def _first_entry(tensor: Tensor) -> int:
    return first_row(tensor) * tensor.shape[1:].numel() if is_sharded(tensor) else 0


def scale_(tensor: Tensor, factors: Tensor) -> None:
    """Multiply a tensor in place, on each process the rows that it has.

    Args:
        tensor: plain or sharded.
        factors: that broadcast against the whole of it, with as many dimensions.
    """
    rows = local(tensor)
    if is_sharded(tensor) and factors.shape[0] > 1:
        begin = first_row(tensor)
        factors = factors[begin : begin + len(rows)]
    with torch.no_grad():
        rows.mul_(factors.to(rows))


def sums_along(values: Tensor, tensor: Tensor, dim: int) -> Tensor:
    """The sums over all other dimensions, with zeros in the place of rows that this process has not.

    Args:
        values: of the rows of `tensor` that this process has.
        tensor: plain or sharded.
        dim: along which the sums lie.

    Returns:
        As many dimensions as `tensor`: its length along `dim`, 1 in all others.
    """
    others = [other for other in range(values.ndim) if other != dim]
    sums = values.sum(others, keepdim=True) if others else values
    if dim == 0 and is_sharded(tensor):
        whole = sums.new_zeros(tensor.shape[0], *sums.shape[1:])
        begin = first_row(tensor)
        whole[begin : begin + len(sums)] = sums
        return whole
    return sums
