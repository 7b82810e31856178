"""Where the `Trainer` of transformers keeps its checkpoints, and the structure's state in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffstruct.errors import CheckpointError

try:
    from transformers import TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError("transformers is not installed: pip install 'diffstruct[transformers]'") from error

FILE = "structure.pt"
"""In the folder of each checkpoint."""


def save(found: Mapping[str, Any], args: TrainingArguments, state: TrainerState) -> None:
    """Put the structure's state beside the model's: all of it, or nothing."""
    path = _folder(args, state) / FILE
    torch.save(found, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def saved(args: TrainingArguments, state: TrainerState) -> Mapping[str, Any]:
    """The structure's state in the checkpoint that the `Trainer` goes on from; it does not say which.

    Raises:
        CheckpointError: that checkpoint is not where it must be, or has no state of a structure.
    """
    given = args.resume_from_checkpoint
    folder = Path(given) if given and Path(given).is_dir() else _folder(args, state)
    here = folder / "trainer_state.json"
    if not here.exists() or TrainerState.load_from_json(str(here)).log_history != state.log_history:
        raise CheckpointError(
            f"{folder} is not the checkpoint that the Trainer goes on from: name its folder as the "
            "TrainingArguments' resume_from_checkpoint as well"
        )
    return read(folder)


def read(folder: Path) -> Mapping[str, Any]:
    """The structure's state in the folder of a checkpoint.

    Raises:
        CheckpointError: there is none.
    """
    if not (folder / FILE).exists():
        raise CheckpointError(f"there is no {FILE} in {folder}: go on from a checkpoint that has one")
    found: Mapping[str, Any] = torch.load(folder / FILE, map_location="cpu", weights_only=True)
    return found


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
