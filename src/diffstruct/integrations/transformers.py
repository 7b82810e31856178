"""transformers: a callback that learns the structure of what a `Trainer` trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffstruct.errors import StructureError
from diffstruct.integrations.before_load import HeldBack, on_device_of
from diffstruct.integrations.loggers import StructureWriter, Writer
from diffstruct.integrations.losses import enter
from diffstruct.integrations.trainer_checkpoints import read, save, saved
from diffstruct.structure import Structure

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError("transformers is not installed: pip install 'diffstruct[transformers]'") from error


class StructureCallback(TrainerCallback):
    """Learns the structure of a model while the `Trainer` of transformers trains it.

    The structure is made when training begins, with the optimizer that there is then. Its state lies in the
    folder of each checkpoint, as `structure.pt`, and is loaded from there when the `Trainer` goes on from it
    or takes the best model at the end. Sizes are in the log, as `units/NAME`. Serves one run; `structure` is
    there from its begin on, also when it has ended.

    Args:
        example_inputs: as for `Structure`, such as a batch: the model's keyword arguments.
        total_steps: steps of the optimizer; None: as many as the `Trainer` makes.
        finish: whether the model is to be plain when training ends, by `Structure.finish`.
        writer: a `torch.utils.tensorboard.SummaryWriter`, to which a `StructureWriter` writes sizes,
            importances and events whenever the `Trainer` logs; None: nobody is told.
        options: further arguments of `Structure`, such as `budget`, by name.

    Example:
        >>> import torch
        >>> from diffstruct.integrations.transformers import StructureCallback
        >>> batch = {"input_ids": torch.ones(2, 8, dtype=torch.long)}
        >>> callbacks = [StructureCallback(example_inputs=batch, finish=True)]  # of a Trainer
    """

    def __init__(
        self,
        *,
        example_inputs: Any,
        total_steps: int | None = None,
        finish: bool = False,
        writer: Writer | None = None,
        **options: Any,
    ) -> None:
        self.example_inputs, self.total_steps, self.finish = example_inputs, total_steps, finish
        self.options = options
        self._writer = None if writer is None else StructureWriter(writer)
        self.structure: Structure | None = None
        self._held_back: HeldBack | None = None

    def on_init_end(self, *_: Any, **kwargs: Any) -> None:
        """The `Trainer` is there. It will load weights before there is an optimizer."""
        self._held_back = HeldBack(kwargs["model"], strict=False)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the structure, or go on with the one that there is; the optimizer has been loaded already."""
        if args.torch_compile:
            raise StructureError("torch_compile hides the model's calls from its structure: leave it out")
        found = saved(args, state) if state.global_step else None
        if self.structure is not None and found is not None and not self.structure._finished:
            self.structure.load_state_dict(found)
            return
        if self.structure is not None or self._held_back is None or state.is_hyper_param_search:
            raise StructureError(
                "this callback serves one run of a Trainer, no search: make model, callback and Trainer anew"
            )
        optimizer = kwargs["optimizer"]
        loaded = optimizer.state_dict()
        optimizer.state.clear()  # it is of the sizes that are saved
        total = state.max_steps if self.total_steps is None else self.total_steps
        inputs = on_device_of(kwargs["model"], self.example_inputs)
        run: Any = {"example_inputs": inputs, "total_steps": total, **self.options}
        self.structure = Structure(kwargs["model"], optimizer, **run)
        self._held_back.deliver(self.structure, found)
        self._held_back = None
        if found is not None:
            optimizer.load_state_dict(loaded)

    def on_prediction_step(self, *_: Any, **kwargs: Any) -> None:
        """Nothing is to be predicted with other weights than those that were loaded."""
        if self._held_back is not None and self._held_back.waiting:
            raise StructureError(
                "weights of other sizes were loaded, and take effect when training begins; to predict now, "
                "use ds.resize_to(model, state_dict, example_inputs), and a Trainer without this callback"
            )

    def on_optimizer_step(self, *_: Any, **kwargs: Any) -> None:
        """A step of the structure, unless a scaler of gradients has left the optimizer's out."""
        if self.structure is not None and not getattr(kwargs["optimizer"], "step_was_skipped", False):
            self.structure.step()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the sizes into the log, for the callbacks behind this one and for the `Trainer`'s history."""
        if self.structure is not None:
            sizes = {f"units/{name}": width.size for name, width in self.structure.widths.items()}
            if "loss" in kwargs["logs"]:
                enter(self.structure, kwargs["logs"]["loss"])
            kwargs["logs"].update(sizes)
            state.log_history[-1].update(sizes)
            self._write(state)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the structure's state beside the model's."""
        if self.structure is not None and args.should_save:
            save(self.structure.state_dict(), args, state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The best model has been loaded by now, if it was to be."""
        assert self.structure is not None
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self.structure.load_state_dict(read(Path(state.best_model_checkpoint)))
        if self.finish:
            self.structure.finish()
        self._write(state)

    def _write(self, state: TrainerState) -> None:
        if self._writer is not None and self.structure is not None and state.is_world_process_zero:
            self._writer.write(self.structure, state.global_step)
