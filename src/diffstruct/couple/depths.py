"""The depths of a model: containers whose children are residual blocks, of which there may be more or fewer.

A candidate is a child of an `nn.ModuleList` or `nn.Sequential` that the model calls once, in the order in
which they stand, and that returns what has the shape of its input. `block_proof` tries each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from diffstruct.couple.block_calls import BlockCall, all_trained, watched
from diffstruct.couple.block_proof import BlockProof
from diffstruct.couple.counters import counters, indices
from diffstruct.couple.find import EXCLUDED, runner
from diffstruct.couple.findings import Findings
from diffstruct.couple.found import Refusal
from diffstruct.couple.proof import Proof
from diffstruct.couple.trials import ProofError
from diffstruct.distributed import following, unwrapped
from diffstruct.errors import StructureError
from diffstruct.interrupts import allowed, uninterrupted
from diffstruct.nn.residual import Residual
from diffstruct.nn.undisturbed import undisturbed
from diffstruct.surgery import moments_of
from diffstruct.width.depth import Block, Depth, Stack, children_of
from diffstruct.width.patterns import check_patterns, chosen
from diffstruct.width.table import aligned, places

CONTAINERS = (nn.ModuleList, nn.Sequential)


@dataclass(repr=False)
class FoundDepths:
    """The depths of a model; `print` shows them, and why other containers of blocks have none.

    Args:
        model: the model.
        depths: those that can be learned, by name.
        refused: blocks that cannot be units of a depth, with reasons.
        proof: runs the model on the example inputs.

    Example:
        >>> import torch
        >>> import diffstruct as ds
        >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)  # its norm is behind the sum
        >>> model = torch.nn.TransformerEncoder(layer, 2)
        >>> ds.find_depths(model, (torch.ones(2, 5, 8),)).refused[0].reason
        'is not the identity when its branches are silent'
    """

    model: nn.Module
    depths: dict[str, Depth]
    refused: list[Refusal]
    proof: Proof

    def explain(self) -> str:
        """Which blocks are no units of a depth, and why: a line each."""
        return "\n".join(map(str, self.refused))

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        rows = [(name, str(depth.size), places(depth, self.model)) for name, depth in self.depths.items()]
        table = aligned([("depth", "blocks", "places"), *rows])
        return f"{table}\n\nnot learned:\n{self.explain()}" if self.refused else table


@uninterrupted
def find_depths(
    model: nn.Module,
    example_inputs: Sequence[Any] | Mapping[str, Any],
    *,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
) -> FoundDepths:
    """Find the containers of residual blocks whose number can be learned, and say why others cannot.

    Args:
        model: any module, also a compiled one; afterwards it is as it was, bit for bit.
        example_inputs: its positional arguments, as a tuple, or its keyword arguments, as a dict, such as it
            is trained on: the model runs on them about three times for each block.
        include: patterns of the names of containers to look at.
        exclude: patterns of those among them to leave as they are.

    Raises:
        StructureError: the model does not run on the example inputs.
        ConfigurationError: a pattern matches the name of no container of blocks.

    Example:
        >>> import torch
        >>> import diffstruct as ds
        >>> class Block(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.up, self.down = torch.nn.Linear(8, 32), torch.nn.Linear(32, 8)
        ...     def forward(self, x):
        ...         return x + self.down(self.up(x).relu())
        >>> blocks = torch.nn.Sequential(Block(), Block(), Block())
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), blocks, torch.nn.Linear(8, 1))
        >>> print(ds.find_depths(model, (torch.ones(16, 3),)))
        depth  blocks  places
        1      3       1.0, 1.1, 1.2
    """
    model, _ = unwrapped(model)
    run = runner(model, example_inputs)
    trains = any(module.training for module in model.modules())
    try:
        proof = Proof(model, run, trains, Findings())
    except ProofError as error:
        raise StructureError(f"{type(model).__name__} does not run on the example inputs: {error}") from error
    with following(model):
        return depths_of(proof, include, exclude)


def depths_of(proof: Proof, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()) -> FoundDepths:
    """The same, for a model that has run before; see `find_depths`."""
    model, found = proof.model, FoundDepths(proof.model, {}, [], proof)
    containers = {
        name or "model": module for name, module in model.named_modules() if isinstance(module, CONTAINERS)
    }
    children = [child for container in containers.values() for child in children_of(container)]
    with undisturbed(model), all_trained(children), watched(children, walks=True) as calls, allowed():
        proof.run()
    candidates: dict[str, dict[nn.Module, tuple[str, ...]]] = {}
    for name, container in containers.items():
        blocks, reasons = _candidates(container, calls)
        if blocks:
            candidates[name] = blocks
        if blocks or reasons:
            names = {child: f"{name}.{key}" for key, child in container._modules.items()}
            found.refused += [Refusal((names[child],), 1, reason) for child, reason in reasons.items()]
    for name in [name for name, blocks in candidates.items() if len(blocks) == 1]:
        inside = {module for block in candidates[name] for module in block.modules()}
        if any(containers[other] in inside for other in candidates):
            del candidates[name]  # a single block that is made of blocks
    _check_names([*candidates], include, exclude)
    # A container of several blocks comes before those within its blocks.
    several = [name for name in candidates if len(candidates[name]) > 1]
    for name in (*several, *(name for name in candidates if name not in several)):
        blocks = candidates[name]
        if not chosen(name, include, exclude):
            found.refused.append(Refusal((name,), len(blocks), EXCLUDED))
        elif (around := _around(containers[name], blocks, found.depths)) is not None:
            if name in several:
                found.refused.append(Refusal((name,), len(blocks), f"lies in the blocks of {around}"))
        else:
            _prove(name, containers[name], blocks, found)
    found.depths = {name: found.depths[name] for name in candidates if name in found.depths}
    return found


def _candidates(
    container: nn.Module, calls: Mapping[nn.Module, BlockCall]
) -> tuple[dict[nn.Module, tuple[str, ...]], dict[nn.Module, str]]:
    """The children that may be blocks, with the names of their last weights; and why others are none."""
    blocks: dict[nn.Module, tuple[str, ...]] = {}
    reasons: dict[nn.Module, str] = {}
    declared = isinstance(container, Residual)
    order = [child for child in calls if child in {*children_of(container)}]
    in_order = order == [child for child in children_of(container) if child in calls]
    for child in dict.fromkeys(children_of(container)):
        call = calls.get(child)
        if call is None or call.walk is None or not any(True for _ in child.parameters()):
            continue
        if not (declared or any(True for _ in child.children())):
            continue  # a layer is no block
        unused = {name for name, _ in child.named_parameters()} - call.walk.all
        if not call.keeps_shape:
            reasons[child] = "returns another shape than it is given"
        elif call.times > 1 or children_of(container).count(child) > 1:
            reasons[child] = f"is called {call.times} times, with the same weights"
        elif not in_order:
            reasons[child] = "is called in another order than it stands in"
        elif not (declared or call.walk.skips):
            reasons[child] = "is not the identity when its branches are silent"
        elif unused:
            reasons[child] = f"does not use {sorted(unused)[0]} with the example inputs"
        elif not call.walk.last:
            reasons[child] = "has no weights that its output is computed with"
        else:
            blocks[child] = call.walk.last
    return blocks, reasons


def _around(container: nn.Module, blocks: Mapping[nn.Module, Any], depths: Mapping[str, Depth]) -> str | None:
    """The depth among `depths` that shares modules with the blocks of a container."""
    inside = {module for block in blocks for module in block.modules()}
    for name, depth in depths.items():
        theirs = {module for block in depth.blocks for module in block.modules()}
        if container in theirs or depth.stack.container in inside:
            return name
    return None


def _prove(
    name: str, container: nn.Module, candidates: Mapping[nn.Module, tuple[str, ...]], found: FoundDepths
) -> None:
    """Add the depth of a container to what was found, with those of its blocks that are proved."""
    texts = [repr(child) for child in candidates]
    blocks = [
        Block(child, tuple(_owned(child, last)), origin=texts.index(text))
        for (child, last), text in zip(candidates.items(), texts, strict=True)
    ]
    children = children_of(container)
    sizes = {len(children), len(blocks)}
    stack = Stack(
        container,
        blocks,
        counters(found.model, name, container, sizes),
        indices(children),
        moments_of(candidates),
    )
    proof = BlockProof(found.proof)
    names = {child: f"{name}.{key}" for key, child in container._modules.items()}
    depth, reasons = proof.prove(Depth(name, stack), zero=isinstance(container, Residual))
    found.refused += [Refusal((names[child],), 1, reason) for child, reason in reasons.items()]
    if depth is not None:
        found.depths[name] = depth


def _owned(block: nn.Module, names: Sequence[str]) -> Iterator[tuple[nn.Module, str]]:
    for name in names:
        path, _, tensor = name.rpartition(".")
        yield block.get_submodule(path), tensor


def _check_names(names: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> None:
    check_patterns(include, names, "include")
    check_patterns(exclude, names, "exclude")
