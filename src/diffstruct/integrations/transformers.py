"""transformers: a callback that learns the structure of what a `Trainer` trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffstruct.errors import CheckpointError, StructureError
from diffstruct.integrations.before_load import HeldBack, on_device_of
from diffstruct.integrations.losses import enter
from diffstruct.structure import Structure

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError("transformers is not installed: pip install 'diffstruct[transformers]'") from error

FILE = "structure.pt"
"""In the folder of each checkpoint."""


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
        options: further arguments of `Structure`, such as `budget`, by name.

    Example:
        >>> import torch
        >>> from diffstruct.integrations.transformers import StructureCallback
        >>> batch = {"input_ids": torch.ones(2, 8, dtype=torch.long)}
        >>> callbacks = [StructureCallback(example_inputs=batch, finish=True)]  # of a Trainer
    """

    def __init__(
        self, *, example_inputs: Any, total_steps: int | None = None, finish: bool = False, **options: Any
    ) -> None:
        self.example_inputs, self.total_steps, self.finish = example_inputs, total_steps, finish
        self.options = options
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
        saved = self._saved(args, state) if state.global_step else None
        if self.structure is not None and saved is not None and not self.structure._finished:
            self.structure.load_state_dict(saved)
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
        self._held_back.deliver(self.structure, saved)
        self._held_back = None
        if saved is not None:
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

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the structure's state beside the model's."""
        if self.structure is not None and args.should_save:
            path = _folder(args, state) / FILE
            torch.save(self.structure.state_dict(), path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The best model has been loaded by now, if it was to be."""
        assert self.structure is not None
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self.structure.load_state_dict(_read(Path(state.best_model_checkpoint)))
        if self.finish:
            self.structure.finish()

    def _saved(self, args: TrainingArguments, state: TrainerState) -> Mapping[str, Any]:
        """The structure's state in the checkpoint that the `Trainer` goes on from; it does not say which."""
        given = args.resume_from_checkpoint
        folder = Path(given) if given and Path(given).is_dir() else _folder(args, state)
        here = folder / "trainer_state.json"
        if not here.exists() or TrainerState.load_from_json(str(here)).log_history != state.log_history:
            raise CheckpointError(
                f"{folder} is not the checkpoint that the Trainer goes on from: name its folder as the "
                "TrainingArguments' resume_from_checkpoint as well"
            )
        return _read(folder)


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"


def _read(folder: Path) -> Mapping[str, Any]:
    if not (folder / FILE).exists():
        raise CheckpointError(f"there is no {FILE} in {folder}: go on from a checkpoint that has one")
    read: Mapping[str, Any] = torch.load(folder / FILE, map_location="cpu", weights_only=True)
    return read
