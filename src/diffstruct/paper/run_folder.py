"""The run folder: the files of a run, written while it goes on.

| file | content |
|---|---|
| `run.json` | settings, status, final figures, versions |
| `history.csv` | `cycle,loss,units`, a row per measurement |
| `events.jsonl` | each addition and deletion, a line per event |
| `model.safetensors` | the weights |
| `units.png` | loss and units over time |

The two logs are appended to and flushed at each measurement; the other files are replaced whole, so that
a process that is killed leaves a readable folder behind.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from safetensors.torch import save
from torch import Tensor

from diffstruct.errors import RunFolderError
from diffstruct.structure import Event, Measurement

FILES = ("run.json", "history.csv", "events.jsonl", "model.safetensors", "units.png")


def replace_file(target: Path, content: bytes) -> None:
    """Write a whole file, in the place of its former version if there is one.

    Raises:
        OSError: the disk refuses; the former version is still whole.
    """
    draft = target.with_name(f"{target.name}.tmp")
    try:
        draft.write_bytes(content)
        os.replace(draft, target)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


class RunFolder:
    """An open run folder; a context manager, which closes the logs.

    Args:
        path: the folder; made, with its parents, if it is not there.
        overwrite: whether a run that the folder already holds may be replaced.

    Raises:
        RunFolderError: the folder holds a run, or cannot be written.
    """

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        self.path = path
        try:
            held = [name for name in FILES if (path / name).exists()]
            if held and not overwrite:
                raise RunFolderError(
                    f"{path} already holds a run ({held[0]}): choose another folder with --out, "
                    "or replace it with --overwrite"
                )
            path.mkdir(parents=True, exist_ok=True)
            for name in held:
                (path / name).unlink()
            self._history: TextIO = (path / "history.csv").open("w", encoding="utf-8")
            self._events: TextIO = (path / "events.jsonl").open("w", encoding="utf-8")
            self._history.write("cycle,loss,units\n")
        except OSError as error:
            raise _cannot_write(path, error) from error

    def append(self, measurement: Measurement, events: list[Event]) -> None:
        """Log a measurement, and the events since the last one.

        Raises:
            RunFolderError: the disk refuses.
        """
        try:
            for event in events:
                fields = asdict(event)
                # The file has its own name for the step.
                self._events.write(json.dumps({"update": fields.pop("step"), **fields}) + "\n")
            self._history.write(f"{measurement.update},{measurement.loss:.6f},{measurement.units}\n")
            self._events.flush()
            self._history.flush()
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def save(self, summary: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Replace `run.json` and `model.safetensors`, each as a whole.

        Raises:
            RunFolderError: the disk refuses; the former files are still whole.
        """
        plain = {name: tensor.contiguous() for name, tensor in weights.items()}
        self.replace("model.safetensors", save(plain))
        self.replace("run.json", (json.dumps(summary, indent=2) + "\n").encode())

    def replace(self, name: str, content: bytes) -> None:
        """Put a whole file in the folder, in the place of its former version if there is one.

        Raises:
            RunFolderError: the disk refuses; the former version is still whole.
        """
        try:
            replace_file(self.path / name, content)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._history.close()
        self._events.close()


def _cannot_write(path: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"cannot write the run folder {path}: {error.strerror or error}; "
        "choose another folder with --out, or make room there"
    )
