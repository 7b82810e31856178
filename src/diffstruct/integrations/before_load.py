"""What trainers load into a model whose sizes are not those that are saved: it takes them on, or waits.

Trainers restore the model first. A structure, which would see to the sizes, needs the optimizer, which is not
there yet. So a model that is to be trained keeps the weights that it has, and gets the others afterwards.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from diffstruct.errors import CheckpointError, StructureWarning
from diffstruct.structure import Structure, resize_to


def _before_load(model: nn.Module, hook: Callable[..., None]) -> RemovableHandle:
    register: Callable[[Any], RemovableHandle] = model.register_load_state_dict_pre_hook
    return register(hook)


def on_device_of(model: nn.Module, inputs: Any) -> Any:
    """Inputs of a model, where its parameters are."""
    device = next((each.device for each in model.parameters()), None)
    return tree_map_only(Tensor, lambda each: each.to(device), inputs)


def take_sizes(root: nn.Module, name: str, inputs: Any) -> RemovableHandle:
    """Let a module take on the sizes of the next state dict that is loaded into the model that it is in.

    Args:
        root: the model.
        name: of the module in it; empty: the model itself.
        inputs: example inputs of the module, as for `resize_to`.

    Returns:
        A handle by which it is let be.
    """

    def resize(root: nn.Module, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        handle.remove()  # the state dict is loaded here as well
        begin = f"{prefix}{name}." if name else prefix
        weights = {key.removeprefix(begin): each for key, each in state_dict.items() if key.startswith(begin)}
        module = root.get_submodule(name)
        resize_to(module, weights, on_device_of(module, inputs))

    handle = _before_load(root, resize)
    return handle


class HeldBack:
    """What is loaded into a model from now on until `deliver` or `drop`.

    Args:
        model: that a trainer may load a state dict into.
        strict: whether weights that lack some of the model's, or have others beside, are refused.
    """

    def __init__(self, model: nn.Module, strict: bool) -> None:
        self.model, self._strict = model, strict
        self.waiting = False
        """Whether weights were loaded that do not fit, so that the model has others until `deliver`."""
        self._weights: dict[str, Any] = {}
        self._handle = _before_load(model, self._hold)

    def _hold(
        self,
        model: nn.Module,
        state_dict: dict[str, Any],
        prefix: str,
        local: Any,
        strict: bool,
        *others: Any,
    ) -> None:
        """Put the model's own weights in the place of those that are to be loaded, unless these fit."""
        mine = [key for key in state_dict if key.startswith(prefix)]
        weights = {key.removeprefix(prefix): state_dict[key] for key in mine}
        whole = _differences(model, weights) == ([], [])
        self.waiting = not whole or _apart(model, weights) is not None
        self._weights = weights if whole else {**self._weights, **weights}  # which come in several parts
        if self.waiting:
            for key in mine:
                del state_dict[key]
            state_dict.update(model.state_dict(prefix=prefix))

    def drop(self) -> None:
        """Hold nothing back any more."""
        self._handle.remove()
        self._weights = {}

    def deliver(self, structure: Structure, saved: Mapping[str, Any] | None) -> None:
        """Load what was held back, the state of the structure first.

        Args:
            structure: of the model, or of a module in it.
            saved: its state dict; None if there is none, as for weights that were trained without one.

        Raises:
            StructureError: the state is not one of this model or run.
            CheckpointError: the weights are not of the same step as the state, or not all of the model's.
        """
        weights = self._weights
        self.drop()
        if saved is not None:
            structure.load_state_dict(saved)
        if not weights or (saved is None and not self.waiting):
            return
        key = _apart(self.model, weights)
        if saved is not None and key is not None:
            own = self.model.state_dict()[key]
            raise CheckpointError(
                f"the state of the structure and the weights are not of one step: {key} has shape "
                f"{[*own.shape]} by the one and {[*weights[key].shape]} in the other"
            )
        lacking, beside = _differences(self.model, weights)
        if lacking or beside:
            says = f"of the model the checkpoint lacks {lacking[:3]}, and it has {beside[:3]} beside"
            if self._strict:
                raise CheckpointError(says)
            warnings.warn(says, StructureWarning, stacklevel=3)
        self.model.load_state_dict(weights, strict=False)


def _apart(model: nn.Module, weights: Mapping[str, Any]) -> str | None:
    """The first of some weights that has another shape than the model's own."""
    own = model.state_dict()
    tensors = ((key, each) for key, each in weights.items() if isinstance(each, Tensor) and key in own)
    return next((key for key, each in tensors if each.shape != own[key].shape), None)


def _differences(model: nn.Module, weights: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What weights lack of a model, and what they have beside; those that are tied may be there once."""
    own = model.state_dict(keep_vars=True)
    here = {id(own[key]) for key in weights if key in own}
    lacking = [key for key, each in own.items() if key not in weights and id(each) not in here]
    return lacking, [key for key in weights if key not in own]
