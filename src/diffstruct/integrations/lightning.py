"""Lightning: a callback that learns the structure of a `LightningModule`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from diffstruct.errors import ConfigurationError, StructureError
from diffstruct.integrations.before_load import HeldBack, on_device_of, take_sizes
from diffstruct.integrations.loggers import StructureWriter
from diffstruct.integrations.losses import loss_in
from diffstruct.structure import Structure

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.loggers import TensorBoardLogger
except ImportError as error:
    raise ImportError("Lightning is not installed: pip install 'diffstruct[lightning]'") from error


class StructureCallback(Callback):
    """Learns the structure of a `LightningModule`, or of a module in it, while a `Trainer` fits it.

    The structure is made when the fit begins, with the optimizers that there are then, and saved and loaded
    with the checkpoints of the `Trainer`, whatever their sizes are. Sizes are logged as `units/NAME`, to
    TensorBoard with what a `StructureWriter` writes. Serves one fit; `structure` stays when it has ended.

    Args:
        module: the name of the module to learn, which `training_step` calls; empty: the `LightningModule`.
        example_inputs: as for `Structure`; None: `example_input_array` of the `LightningModule`.
        total_steps: steps of the optimizers; None: as many as the `Trainer` makes.
        finish: whether the model is to be plain when the fit ends, by `Structure.finish`.
        options: further arguments of `Structure`, such as `budget`, by name.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from diffstruct.integrations.lightning import StructureCallback
        >>> structure = StructureCallback(module="net", example_inputs=(torch.ones(16, 3),))
        >>> trainer = Trainer(max_epochs=3, callbacks=[structure], logger=False, accelerator="cpu")
    """

    def __init__(
        self,
        module: str = "",
        *,
        example_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
        total_steps: int | None = None,
        finish: bool = False,
        **options: Any,
    ) -> None:
        self.module, self.example_inputs, self.total_steps = module, example_inputs, total_steps
        self.finish, self.options, self._stepped = finish, options, False
        self.structure: Structure | None = None
        self._held_back: HeldBack | None = None
        self._saved: dict[str, Any] | None = None
        self._handles, self._writers = list[RemovableHandle](), dict[int, StructureWriter]()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before weights are restored, which is before there are optimizers."""
        if stage == "fit":
            if self.structure is not None:
                raise StructureError(
                    "this callback has learned the structure of a fit already: make model, callback and "
                    "Trainer anew, also to go on from a checkpoint"
                )
            if getattr(pl_module, "_compiler_ctx", None):
                raise StructureError("compile the module within that is learned, not the LightningModule")
            self._held_back = HeldBack(pl_module, pl_module.strict_loading)
        elif not self._learning:
            self._handles = [take_sizes(pl_module, self.module, self._inputs(pl_module))]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the structure: there are optimizers now."""
        total = trainer.estimated_stepping_batches if self.total_steps is None else self.total_steps
        if not 1 <= total < float("inf"):
            raise ConfigurationError("the Trainer does not know how many steps it makes: give total_steps")
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        kinds = {kind.__name__ for each in callbacks for kind in type(each).__mro__}
        if averaging := kinds & {"WeightAveraging", "StochasticWeightAveraging"}:
            raise StructureError(f"the copy that {averaging.pop()} averages cannot follow: leave it out")
        model = pl_module.get_submodule(self.module)
        inputs = trainer.precision_plugin.convert_input(on_device_of(model, self._inputs(pl_module)))
        run: Any = {"example_inputs": inputs, "total_steps": int(total), **self.options}
        self.structure = Structure(model, trainer.optimizers, **run)
        mark = lambda *_: setattr(self, "_stepped", True)  # noqa: E731
        self._handles = [each.register_step_post_hook(mark) for each in trainer.optimizers]
        assert self._held_back is not None
        self._held_back.deliver(self.structure, self._saved)
        self._held_back = self._saved = None
        self._log(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """A step of the structure, if the optimizers have made one: not where gradients accumulate."""
        if self._stepped and self.structure is not None:
            self._stepped = False
            every = max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]
            if self.structure.step(loss_in(outputs, trainer, pl_module)) or trainer.global_step % every == 0:
                self._log(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The end of a fit; the model is still where it was trained."""
        if self.finish and self.structure is not None:
            plain = self.structure.finish()
            if self.module:
                pl_module.set_submodule(self.module, plain)
            self._log(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no hooks behind but those of the structure."""
        for handle in self._handles:
            handle.remove()
        if self._held_back is not None:
            self._held_back.drop()
        self._handles, self._held_back = [], None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """There is no `teardown` then."""
        self.teardown(trainer, pl_module, "")

    def state_dict(self) -> dict[str, Any]:
        """The structure's, for the checkpoint of the `Trainer`."""
        return {} if self.structure is None else self.structure.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from it: at once, or when there is a structure."""
        if self._held_back is not None:
            self._saved = state_dict
        elif self.structure is not None and self._learning:
            self.structure.load_state_dict(state_dict)

    @property
    def _learning(self) -> bool:
        return self.structure is not None and not self.structure._finished

    def _inputs(self, pl_module: LightningModule) -> Any:
        inputs: Any = pl_module.example_input_array if self.example_inputs is None else self.example_inputs
        return (inputs,) if isinstance(inputs, torch.Tensor) else inputs

    def _log(self, trainer: Trainer) -> None:
        assert self.structure is not None
        sizes = {f"units/{name}": float(width.size) for name, width in self.structure.widths.items()}
        for place, logger in enumerate(trainer.loggers):
            logger.log_metrics(sizes, step=trainer.global_step)
            if isinstance(logger, TensorBoardLogger):
                writer = self._writers.setdefault(place, StructureWriter(logger.experiment))
                writer.write(self.structure, trainer.global_step, scalars=False)
