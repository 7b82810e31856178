"""save and load: the state of a whole run, in one call."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from diffstruct.checkpoint.content import Content, read
from diffstruct.checkpoint.files import Damaged, make_folder, sync
from diffstruct.checkpoint.folder import MANIFEST, clear, locked, next_number, number_of, numbered, prune
from diffstruct.checkpoint.objects import VALUE, Saved, check, kind_of, restore, state_of
from diffstruct.errors import CheckpointError, ConfigurationError


class NothingSavedError(CheckpointError):
    """There is no checkpoint at all."""


def save(folder: str | os.PathLike[str], *, keep: int = 3, **objects: Any) -> Path:
    """Save objects as the next numbered checkpoint of a folder.

    A checkpoint gets its number when all of it has reached the disk; older ones are removed after that. A
    process that is killed at any moment leaves the checkpoints that there were.

    Args:
        folder: where the checkpoints are; made if it is not there.
        keep: how many checkpoints stay, this one included.
        **objects: by names of your choice: anything with `state_dict` and `load_state_dict`, generators of
            torch and NumPy, and values, which `load` returns: tensors, arrays, numbers, strings, bytes, None,
            and dicts, lists and tuples of these.

    Returns:
        The folder of this checkpoint, such as `runs/000012`.

    Raises:
        CheckpointError: something cannot be saved, another process is saving to the folder, or the disk
            refuses. The checkpoints that there were are whole.
        ConfigurationError: no checkpoint is to be kept.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import diffstruct as ds
        >>> folder = tempfile.mkdtemp()
        >>> model = torch.nn.Linear(3, 2)
        >>> ds.checkpoint.save(folder, model=model, step=100).name
        '000001'
    """
    if keep < 1:
        raise ConfigurationError(f"keep={keep}: at least one checkpoint has to stay")
    folder = Path(folder)
    content = Content({name: Saved(kind_of(item), state_of(item)) for name, item in objects.items()})
    try:
        if (folder / MANIFEST).exists():
            raise CheckpointError(f"{folder} is a checkpoint itself: save to the folder that it lies in")
        make_folder(folder)
        with locked(folder):
            clear(folder)
            path = _write(folder, content)
            _prune(folder, keep, path)
    except OSError as error:
        raise CheckpointError(
            f"cannot save to {folder}: {error.strerror or error}. Make room there, or choose a folder that "
            "can be written; the checkpoints that it holds are whole"
        ) from error
    return path


def _write(folder: Path, content: Content) -> Path:
    """Write the next checkpoint aside, and give it its number."""
    draft, path = next_number(folder)
    try:
        content.write(draft, int(path.name))
        draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)  # if even that fails, the next save does it
        raise
    sync(folder)
    return path


def _prune(folder: Path, keep: int, path: Path) -> None:
    try:
        prune(folder, keep)
    except OSError as error:
        raise CheckpointError(
            f"{path} is saved and whole, but those before it cannot be removed: {error.strerror or error}"
        ) from error


def latest(folder: str | os.PathLike[str]) -> Path | None:
    """The newest checkpoint of a folder; None if there is none, or no such folder.

    Example:
        >>> import diffstruct as ds
        >>> print(ds.checkpoint.latest("no/such/folder"))
        None
    """
    return next(iter(numbered(Path(folder))), None)


def load(folder: str | os.PathLike[str], **objects: Any) -> dict[str, Any]:
    """Load the newest checkpoint of a folder, or the checkpoint that the folder is.

    All of it is read and checked before the first object is touched, and if an object refuses its state,
    those that have theirs are put back: either everything is loaded, or nothing has changed.

    Args:
        folder: as given to `save`, or one checkpoint, as `save` returned it.
        **objects: those to load, by the names under which they were saved. Others may be left out.

    Returns:
        The values that were saved, by name; tensors among them are on the CPU.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged or lacks one of these names, or an object
            refuses what was saved of it.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import diffstruct as ds
        >>> folder = tempfile.mkdtemp()
        >>> model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
        >>> path = ds.checkpoint.save(folder, model=model, step=100)
        >>> ds.checkpoint.load(folder, model=other)
        {'step': 100}
        >>> torch.equal(model.weight, other.weight)
        True
    """
    saved = _read(Path(folder))
    check(objects, saved)
    restore(objects, saved)
    return {name: item.state for name, item in saved.items() if item.kind == VALUE}


def states(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """All that is saved in the newest checkpoint of a folder, objects as their states; nothing is loaded.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged.
    """
    return {name: item.state for name, item in _read(Path(folder)).items()}


def _read(folder: Path) -> dict[str, Saved]:
    """What is saved in a checkpoint, or in the newest of a folder."""
    try:
        while True:
            path = _meant_by(folder)
            try:
                return read(path)
            except (Damaged, OSError) as error:
                if path != folder and not path.exists():
                    continue  # newer ones were saved meanwhile, and this one has had its time
                if isinstance(error, OSError):
                    raise
                raise CheckpointError(
                    f"the checkpoint {path} is damaged: {error}. {_advice(path)}"
                ) from error
    except OSError as error:
        raise CheckpointError(f"cannot load from {folder}: {error}") from error


def _meant_by(folder: Path) -> Path:
    """The checkpoint that is meant by a folder: itself, or the newest in it."""
    path = folder if (folder / MANIFEST).exists() else latest(folder)
    if path is None and number_of(folder) is not None and folder.is_dir():
        return folder  # of which the manifest is gone
    if path is None:
        raise NothingSavedError(f"there is no checkpoint in {folder}")
    return path


def _advice(path: Path) -> str:
    """Which checkpoint to load in place of a damaged one."""
    number = number_of(path)
    earlier = [each for each in numbered(path.parent) if number is not None and int(each.name) < number]
    for each in earlier:
        try:
            read(each)
        except (Damaged, OSError):
            continue
        return f"The last whole one before it is loaded by load({str(each)!r}, ...)"
    return "There is no whole one before it"
