"""A depth is used only after surgery has proved its blocks on the example inputs.

With the last weights at zero a block must return what it was given, bit for bit, in the modes in which the
model runs, and these weights must get a gradient then; the model without the block must return what it
returns with the block silent; and with a silent copy behind the block, what it returned before. Each time the
model is restored bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor, nn

from diffstruct.couple.block_calls import BlockCall, watched
from diffstruct.couple.proof import Proof
from diffstruct.couple.trials import ProofError, one_line
from diffstruct.interrupts import allowed
from diffstruct.nn.undisturbed import undisturbed
from diffstruct.surgery import Change, change_blocks, newborn, silence
from diffstruct.width.depth import Block, Counter, Depth, Stack

SEED = 0
"""Of new blocks that are tried, and of the gradients at the outputs of silent ones."""


class BlockProof:
    """Tries the blocks of a model.

    Args:
        proof: runs the model.
    """

    def __init__(self, proof: Proof) -> None:
        self.proof, self.model = proof, proof.model

    def prove(self, depth: Depth, zero: bool) -> tuple[Depth | None, dict[nn.Module, str]]:
        """The depth with those of its blocks that are proved, or None; and why others are not.

        Args:
            depth: with all blocks and counters that it may have.
            zero: whether a silent block returns zero, and not its input.
        """
        stack = depth.stack
        reasons = self._no_identities(stack.blocks, zero)
        reasons.update(self._no_gradients([b for b in stack.blocks if b.module not in reasons]))
        blocks = [block for block in stack.blocks if block.module not in reasons]
        if not blocks:
            return None, reasons
        proved: Stack | None = None
        first: ProofError | None = None
        for chosen in _subsets(stack.counters):
            trial = replace(stack, blocks=blocks, counters=chosen)
            try:
                self._insertion(trial, blocks[-1], behind=True)
            except ProofError as error:
                first = first or error
                continue
            proved = trial
            break
        if proved is None:
            proved = replace(stack, blocks=blocks)
        return self._units(depth.name, proved, reasons, str(first))

    def _units(
        self, name: str, stack: Stack, reasons: dict[nn.Module, str], why: str
    ) -> tuple[Depth | None, dict[nn.Module, str]]:
        units = []
        for block in stack.blocks:
            try:
                self._removal(stack, block)
            except ProofError as error:
                reasons[block.module] = str(error)
                continue
            units.append(replace(block, copies=self._copies(stack, block)))
        if not units:
            return None, reasons
        if len(units) == 1 and not units[0].copies:
            reasons[units[0].module] = why
            return None, reasons
        front = units[0].copies and self._holds(stack, units[0], behind=False)
        return Depth(name, replace(stack, blocks=units, most=len(units), front=front)), reasons

    def _copies(self, stack: Stack, block: Block) -> bool:
        return self._holds(stack, block, behind=True)

    def _holds(self, stack: Stack, block: Block, behind: bool) -> bool:
        try:
            self._insertion(stack, block, behind)
        except ProofError:
            return False
        return True

    def _no_identities(self, blocks: Sequence[Block], zero: bool) -> dict[nn.Module, str]:
        """The blocks that do not return what they were given when all are silent."""
        reasons: dict[nn.Module, str] = {}
        with ExitStack() as undo:
            for block in blocks:
                undo.callback(silence(block))
            for training in (False, True) if self.proof.trains else (False,):
                with watched(block.module for block in blocks) as calls:
                    self.proof.outputs(training)
                for block in blocks:
                    call = calls.get(block.module)  # None: training leaves it out at random, this time
                    if call is not None and not _is_identity(call, zero):
                        reasons[block.module] = "is not the identity when its branches are silent"
        return reasons

    def _no_gradients(self, blocks: Sequence[Block]) -> dict[nn.Module, str]:
        """The blocks whose last weights get no gradient when they are silent."""
        reasons: dict[nn.Module, str] = {}
        graphs: dict[nn.Module, Tensor] = {}
        with ExitStack() as undo:
            for block in blocks:
                undo.callback(silence(block))
                tensors = [getattr(module, name) for module, name in block.last]
                if not all(tensor.requires_grad for tensor in tensors):
                    reasons[block.module] = "has last weights that are frozen"
                handle = block.module.register_forward_hook(_keep(graphs))
                undo.callback(handle.remove)
            undo.enter_context(undisturbed(self.model))
            undo.enter_context(torch.enable_grad())
            with allowed():
                self.proof.run()
            for block in blocks:
                if block.module in reasons or block.module not in graphs:
                    continue
                output = graphs[block.module]
                noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(SEED)).to(output)
                tensors = [getattr(module, name) for module, name in block.last]
                try:
                    found = torch.autograd.grad(output, tensors, noise, retain_graph=True, allow_unused=True)
                except RuntimeError as error:  # the model cannot be trained
                    reasons[block.module] = f"its gradient fails: {one_line(error)}"
                    continue
                if not any(grad is not None and bool(grad.count_nonzero()) for grad in found):
                    reasons[block.module] = "gets no gradient when its branches are silent"
        return reasons

    def _removal(self, stack: Stack, block: Block) -> None:
        """Silence a block, then take it out; the outputs must be the same."""
        loud = silence(block)
        try:
            silent = self.proof.outputs()
        finally:
            loud()
        if len(stack.blocks) == 1:  # the last block stays
            return
        depth = Depth("", replace(stack, blocks=[*stack.blocks]))
        gone = stack.blocks.index(block)
        keep = tuple(unit for unit in range(depth.size) if unit != gone)
        undo = change_blocks(self.model, Change(depth, keep, 0))
        try:
            self.proof.same(
                self._outputs("without it"), silent, "without it the model is another than with it silent"
            )
        finally:
            undo()

    def _insertion(self, stack: Stack, block: Block, behind: bool) -> None:
        """Put a silent copy of a block behind it, or in front of it; the output must not change."""
        depth = Depth("", replace(stack, blocks=[*stack.blocks]))
        generator = torch.Generator().manual_seed(SEED)
        children = [child for child in stack.container._modules.values() if child is not None]
        place = children.index(block.module) + behind
        before = children[place] if place < len(children) else None
        try:
            birth = newborn(self.model, depth, block, before, (), generator)
        except Exception as error:  # whatever a user's module raises when it is copied
            raise ProofError(f"cannot be copied: {one_line(error)}") from error
        undo = change_blocks(self.model, Change(depth, tuple(range(depth.size)), 1), [birth])
        try:
            what = "a silent copy of it changes the model's output"
            self.proof.same(self._outputs("with a copy of it"), self.proof.expected, what)
            if self.proof.trains:
                self.proof.outputs(training=True)
        finally:
            undo()

    def _outputs(self, what: str) -> list[Tensor]:
        try:
            return self.proof.outputs()
        except ProofError as error:
            raise ProofError(str(error).replace("with a unit more or less", what)) from error


def _is_identity(call: BlockCall, zero: bool) -> bool:
    if call.given is None or call.returned is None:
        return False
    return torch.equal(call.returned, torch.zeros_like(call.given) if zero else call.given)


def _keep(graphs: dict[nn.Module, Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, args: object, result: object) -> None:
        outputs = result if isinstance(result, (tuple, list)) else (result,)
        tensors = [each for each in outputs if isinstance(each, Tensor) and each.is_floating_point()]
        if tensors:
            graphs[module] = tensors[0]

    return hook


def _subsets(counters: Sequence[Counter]) -> Iterator[tuple[Counter, ...]]:
    """All, none, then each: not all subsets, which would take too long."""
    yield (*counters,)
    for size in range(min(2, len(counters))):
        yield from combinations(counters, size)
