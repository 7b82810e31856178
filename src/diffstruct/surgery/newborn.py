"""New blocks: copies of a sibling, drawn afresh, and silent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from diffstruct.distributed import shard_like, whole_copy
from diffstruct.surgery.blocks import Birth
from diffstruct.width.depth import Block, Depth
from diffstruct.width.layout import Axis


def newborn(
    model: nn.Module,
    depth: Depth,
    sibling: Block,
    before: nn.Module | None,
    outside: Iterable[Axis],
    generator: torch.Generator,
) -> Birth:
    """A silent block like `sibling`: it returns what it is given, to the bit, and is trained from there.

    Its parameters are drawn with the mean and deviation that those of the model's blocks came with, or by
    the `reset_parameters` of the module that has them, where that is not one of PyTorch's. What the sibling
    shares with the rest of the model (a module, a parameter, a configuration), the new block shares, too. One
    of a model that `fully_shard` has sharded is sharded as its sibling is.

    Args:
        model: the model.
        depth: of it.
        sibling: the block to copy.
        before: the child of the container that the new block goes in front of; None: behind all.
        outside: the axes of widths that do not live in the sibling alone.
        generator: the only source of chance.
    """
    memo: dict[int, Any] = {id(axis): axis for axis in outside}
    kept = _shared(model, sibling.module)
    memo.update(kept)
    module = whole_copy(sibling.module, memo)
    twins = dict(zip(sibling.module.modules(), module.modules(), strict=True))
    _draw(module, depth.stack.moments, kept, generator)
    last = tuple((twins[owner], name) for owner, name in sibling.last)
    with torch.no_grad():
        for owner, name in last:
            getattr(owner, name).zero_()
    shard_like(module, sibling.module)
    return Birth(Block(module, last, origin=sibling.origin), sibling, before, memo)


def moments_of(blocks: Iterable[nn.Module]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each parameter of some blocks, by its name in the block."""
    found: dict[str, list[tuple[float, float]]] = {}
    for block in blocks:
        for name, parameter in block.named_parameters():
            if parameter.is_floating_point():
                values = parameter.detach().double()
                deviation = values.std().item() if values.numel() > 1 else 0.0
                found.setdefault(name, []).append((values.mean().item(), deviation))
    return {
        name: (sum(mean for mean, _ in each) / len(each), sum(deviation for _, deviation in each) / len(each))
        for name, each in found.items()
    }


@torch.no_grad()
def _draw(
    block: nn.Module,
    moments: Mapping[str, tuple[float, float]],
    kept: Mapping[int, Any],
    generator: torch.Generator,
) -> None:
    own = {name: p for name, p in block.named_parameters() if id(p) not in kept and p.is_floating_point()}
    known = {**moments_of([block]), **moments}
    for name, parameter in own.items():
        mean, deviation = known[name]
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_((mean + deviation * noise).to(parameter))
    for module in block.modules():
        if id(module) in kept:
            continue
        if isinstance(module, _NormBase):
            module.reset_running_stats()
        reset = getattr(module, "reset_parameters", None)
        if callable(reset) and not type(module).__module__.startswith("torch."):
            # The module's own code draws from PyTorch's generator: a fork of it, which `generator` seeds.
            devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
            with torch.random.fork_rng([*devices]):
                torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
                reset()


def _shared(model: nn.Module, block: nn.Module) -> dict[int, Any]:
    """What belongs to modules outside of a block, by id: modules, tensors, and what else they refer to."""
    found: dict[int, Any] = {}
    waiting = [model]
    while waiting:
        module = waiting.pop()
        if module is block or id(module) in found:
            continue
        found[id(module)] = module
        found.update((id(each), each) for each in vars(module).values() if not isinstance(each, nn.Module))
        tensors = (*module._parameters.values(), *module._buffers.values())
        found.update((id(each), each) for each in tensors if each is not None)
        waiting += [child for child in module._modules.values() if child is not None]
    return found
