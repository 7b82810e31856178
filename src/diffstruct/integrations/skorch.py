"""skorch: a callback that learns the structure of a `NeuralNet`'s module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from diffstruct.distributed import unwrapped
from diffstruct.integrations.before_load import on_device_of
from diffstruct.structure import Structure

try:
    from skorch import NeuralNet
    from skorch.callbacks import Callback
    from skorch.dataset import unpack_data
    from skorch.utils import to_tensor
except ImportError as error:
    raise ImportError("skorch is not installed: pip install 'diffstruct[skorch]'") from error


OWN = ("model", "optimizer", "example_inputs", "total_steps")
DEFAULTS = {key: each.default for key, each in signature(Structure).parameters.items() if key not in OWN}
"""The other arguments of `Structure`."""


class StructureCallback(Callback):
    """Learns the structure of the module of a `NeuralNet` while it is fitted.

    The structure is made when training begins, and is `net.diffstruct_` then, so that skorch saves and loads
    it as it does an optimizer: `Checkpoint(f_diffstruct="structure.pt")`. skorch loads in the order of the
    alphabet, and sizes must be there before the optimizer. They are in `net.history`, as `units/NAME`. Put
    this callback behind a `Checkpoint`, and in front of a `LoadInitState`.

    Args:
        example_inputs: as for `Structure`; None: the first batch of the data.
        total_steps: steps of the optimizer; None: as many as there are batches in `max_epochs`.
        finish: whether the module is to be plain when training ends, by `Structure.finish`.
        options: further arguments of `Structure`, such as `budget`, by name; a search for hyperparameters
            may set them, as `callbacks__structure__budget` of `("structure", StructureCallback(...))`.

    Example:
        >>> import torch
        >>> from skorch import NeuralNetClassifier
        >>> from diffstruct.integrations.skorch import StructureCallback
        >>> layers = torch.nn.Linear(20, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2)
        >>> options = {"criterion": torch.nn.CrossEntropyLoss, "optimizer": torch.optim.Adam}
        >>> net = NeuralNetClassifier(
        ...     torch.nn.Sequential(*layers), **options, callbacks=[StructureCallback(finish=True)]
        ... )
    """

    def __init__(
        self,
        example_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
        total_steps: int | None = None,
        finish: bool = False,
        **options: Any,
    ) -> None:
        self.example_inputs, self.total_steps, self.finish = example_inputs, total_steps, finish
        if unknown := options.keys() - DEFAULTS.keys():
            raise TypeError(f"Structure has no options {sorted(unknown)}; it has {sorted(DEFAULTS)}")
        self._stepped, self._handles = False, list[RemovableHandle]()
        self.__dict__.update({**DEFAULTS, **options})  # each a parameter of its own, as skorch wants it

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Make the structure, unless training goes on."""
        known: Structure | None = getattr(net, "diffstruct_", None)
        if known is None or known.model is not unwrapped(net.module_)[0]:
            options = {key: getattr(self, key) for key in DEFAULTS}
            inputs, steps = self._seen(net, X, y)
            run: Any = {"example_inputs": inputs, "total_steps": steps, **options}
            net.diffstruct_ = known = Structure(net.module_, _optimizers(net), **run)
            if "diffstruct_" not in net.cuda_dependent_attributes_:  # it is pickled together with the module
                net.cuda_dependent_attributes_ = [*net.cuda_dependent_attributes_, "diffstruct_"]
        self._stepped = False
        self._handles = [each.register_step_post_hook(self._mark) for each in known.training.optimizers]

    def on_batch_end(self, net: NeuralNet, training: bool | None = None, loss: Any = None, **_: Any) -> None:
        """A step of the structure, if the optimizer has made one: not where gradients accumulate."""
        if self._stepped and training and not net.diffstruct_._finished:
            self._stepped = False
            net.diffstruct_.step(None if loss is None else loss.detach())
            _record(net)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Make the module plain, if it is to be."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self.finish and not net.diffstruct_._finished:
            net.module_ = net.diffstruct_.finish()
            _record(net)

    def _mark(self, *_: Any) -> None:
        self._stepped = True

    def _get_param_names(self) -> list[str]:
        """The arguments, those of `Structure` included."""
        return [name for name in vars(self) if not name.startswith("_")]

    def __getstate__(self) -> dict[str, Any]:
        """Without hooks, which belong to the optimizers."""
        return {**vars(self), "_handles": []}

    def _seen(self, net: NeuralNet, X: Any, y: Any) -> tuple[Any, int]:
        """What the module is called with, and steps: as given, or of the data."""
        inputs, steps = self.example_inputs, self.total_steps
        if inputs is None or steps is None:
            with torch.random.fork_rng(devices=[]):  # a loader draws from it
                data, _ = net.get_split_datasets(X, y)
                if steps is None:
                    steps = len(net.get_iterator(data, training=True)) * net.max_epochs
                if inputs is None:
                    batch = next(iter(net.get_iterator(data, training=False)))
                    first = to_tensor(unpack_data(batch)[0], device=net.device)
                    inputs = first if isinstance(first, Mapping) else (first,)
        return on_device_of(net.module_, inputs), steps


def _optimizers(net: NeuralNet) -> list[torch.optim.Optimizer]:
    return [getattr(net, f"{name}_") for name in net._optimizers]


def _record(net: NeuralNet) -> None:
    for name, width in net.diffstruct_.widths.items():
        net.history.record(f"units/{name}", width.size)
