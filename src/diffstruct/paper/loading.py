"""Trained networks, from their run folders."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from diffstruct.errors import ConfigurationError, RunFolderError
from diffstruct.paper.network import CharRNN
from diffstruct.paper.reading import read_bytes, read_summary
from diffstruct.paper.revisions import get_revision


def load_run(folder: str | os.PathLike[str]) -> CharRNN:
    """The network of a run: as it was at the end, or, of a run that goes on or was killed, saved last.

    Args:
        folder: of `diffstruct grow` or `Run.go`.

    Returns:
        The network, in evaluation mode. It knows the `alphabet` of what it has read, so that it can `encode`
        text, and `sample` writes text from it.

    Raises:
        RunFolderError: there is no run in the folder, or one of `run.json` and `model.safetensors` is missing
            or damaged.

    Example:
        >>> import tempfile
        >>> import diffstruct as ds
        >>> folder = tempfile.mkdtemp()
        >>> summary = ds.paper.Run("easy", cycles=200).go(folder, overwrite=True)
        >>> model = ds.paper.load_run(folder)
        >>> logits, state = model(model.encode("(abab)(ab"))
        >>> logits.shape, model.alphabet
        (torch.Size([9, 4]), '()ab')
    """
    path = Path(folder)
    told = read_summary(path)
    alphabet, file = told.get("alphabet"), path / "model.safetensors"
    if not (isinstance(alphabet, str) and alphabet):
        raise RunFolderError(f"{path / 'run.json'} is damaged: it does not name the alphabet")
    try:
        revision = get_revision(told.get("revision"))
    except (ConfigurationError, TypeError) as error:
        raise RunFolderError(f"{path / 'run.json'} is damaged: {error}") from error
    try:
        weights = load(read_bytes(file))
        units, dtype = len(weights["rnn.weight_ih_l0"]), weights["rnn.weight_ih_l0"].dtype
        model = CharRNN(len(alphabet), units, torch.Generator(), revision.multiplier, dtype)
        model.load_state_dict(weights)
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise RunFolderError(
            f"{file} is damaged, or not of the network that {path / 'run.json'} tells of "
            f"({type(error).__name__}: {first})"
        ) from error
    model.alphabet = alphabet
    return model.eval()
