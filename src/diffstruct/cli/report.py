"""`diffstruct report`: what happened in runs, as a page."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated

import torch
import typer

from diffstruct.checkpoint.checkpoint import NothingSavedError, states
from diffstruct.errors import RunFolderError, StructureError
from diffstruct.paper.record import record_of_folder
from diffstruct.paper.run_folder import PAGE
from diffstruct.report import Record
from diffstruct.report.page import write
from diffstruct.structure.saved import found_in, record_of_saved

_Runs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...",
        help="Run folders, finished or not; or what was saved of a structure: folders of ds.checkpoint.save, "
        "or files of torch.save that hold its state dict.",
        show_default=False,
    ),
]
_Out = Annotated[
    Path | None,
    typer.Option(
        help="The file to write.  [dim]\\[default: report.html in RUN; of several, or of a file, in the "
        "current folder][/]",
        show_default=False,
    ),
]
_Open = Annotated[bool, typer.Option("--open", help="Open it in the browser.")]


def report_command(runs: _Runs, out: _Out = None, show: _Open = False) -> None:
    """Show what happened in runs, as one HTML file that needs nothing else.

    It has loss and sizes over time, the network at each moment, the life of each unit, importances against
    the price, cost against the budget, and all events. Of several runs it shows medians and quartiles, and
    each of them.

    [bold]Examples[/]

      diffstruct report runs/hard-s0 --open

      diffstruct report runs/hard-s* --out hard.html
    """
    records = [record_of(path) for path in runs]
    default = runs[0] / PAGE if len(runs) == 1 and runs[0].is_dir() else Path(PAGE)
    written = write(records, out or default)
    print(written)
    if show:
        webbrowser.open(written.resolve().as_uri())


def record_of(path: Path) -> Record:
    """The record of a run folder, or of what was saved of a structure.

    Raises:
        RunFolderError: there is nothing, or nothing that a page could be made of.
        CheckpointError: a checkpoint is damaged.
    """
    if (path / "run.json").exists():
        return record_of_folder(path)
    if path.is_file():
        tree = _loaded(path)
    elif path.is_dir():
        try:
            tree = states(path)
        except NothingSavedError as error:
            raise RunFolderError(f"{path} holds neither a run of diffstruct grow nor a checkpoint") from error
    else:
        raise RunFolderError(f"there is no {path}: name the folder of a run, such as runs/hard-s0")
    state = found_in(tree)
    if state is None:
        raise RunFolderError(f"{path} holds no state dict of a structure: save structure.state_dict() too")
    try:
        return record_of_saved(state, path.name)
    except StructureError as error:
        raise RunFolderError(f"{path}: {error}") from error


def _loaded(path: Path) -> object:
    """What `torch.save` wrote, if it is tensors and plain values."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError, ValueError, KeyError) as error:
        what = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunFolderError(f"cannot read {path} as a file of torch.save: {what:.200}") from error
