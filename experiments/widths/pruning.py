"""Torch-Pruning: sparse training with its group-norm regulariser, a cut to a budget, and fine-tuning."""

from __future__ import annotations

import torch_pruning as tp
from torch import Tensor, nn
from transformer import Attention, Block

STEPS = 400
"""Cuts between the whole model and nothing, as in Torch-Pruning's own reproductions."""


class Pruner:
    """Cuts a model in the middle of its training.

    Args:
        model: the model.
        example: what it takes.
        strength: of the regulariser.
    """

    def __init__(self, model: nn.Module, example: Tensor, strength: float) -> None:
        self.model = model
        self._attentions = [each for each in model.modules() if isinstance(each, Attention)]
        self._pruner = tp.pruner.GroupNormPruner(
            model,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2, normalizer="max"),
            reg=strength,
            global_pruning=True,
            pruning_ratio=1.0,
            iterative_steps=STEPS,
            ignored_layers=_kept(model),
            num_heads={each: a.num_heads for a in self._attentions for each in (a.q, a.k, a.v)},
            prune_num_heads=bool(self._attentions),
            prune_head_dims=not self._attentions,
            head_pruning_ratio=1.0 if self._attentions else 0.0,
        )
        model.train()  # it leaves the model in evaluation mode

    def regularise(self) -> None:
        """Add the regulariser's slope to the gradients."""
        self._pruner.regularize(self.model)

    def cut(self, parameters: int) -> None:
        """Remove the groups of the smallest norms, a few at a time, until so many parameters are left."""
        for step in range(1, STEPS + 1):
            if sum(each.numel() for each in self.model.parameters()) <= parameters:
                return
            self._spare_heads(step)
            self._pruner.step()
            self._follow()

    def _spare_heads(self, step: int) -> None:
        """Let it look at heads only where one is to go: it has an error where none is."""
        heads, ratios = self._pruner.initial_total_heads, self._pruner.per_step_head_pruning_ratio
        if sum(attention.num_heads for attention in self._attentions) <= int(heads * (1 - ratios[step])):
            ratios[step] = 0.0

    def _follow(self) -> None:
        """Tell attentions how many heads are left, and the pruner, which counts heads that it had to keep."""
        for attention in self._attentions:
            attention.num_heads = attention.q.out_features // attention.head_dim
            for each in (attention.q, attention.k, attention.v):
                self._pruner.num_heads[each] = attention.num_heads
                self._pruner.out_channel_groups[each] = attention.num_heads


def _kept(model: nn.Module) -> list[nn.Module]:
    """What keeps its outputs: the last layer, and all that writes to a transformer's stream."""
    linear = [each for each in model.modules() if isinstance(each, nn.Linear)]
    blocks = [each for each in model.modules() if isinstance(each, Block)]
    return [linear[-1], *(layer for block in blocks for layer in (block.down, block.attention.o))]
