"""The run folder: the files of a run, written while it goes on.

| file | content |
|---|---|
| `run.json` | settings, status, final figures, versions |
| `history.csv` | `cycle,loss,units`, a row per measurement |
| `events.jsonl` | each addition and deletion, a line per event |
| `importances.jsonl` | what each unit was worth, from time to time: some hundreds of lines at most |
| `model.safetensors` | the weights |
| `units.png` | loss and units over time |
| `checkpoint` | a folder, all that the run needs to be gone on with; there until it is finished |

The logs are appended to and flushed at each measurement; the other files are replaced whole, and so is
`importances.jsonl` where it is thinned out, so that a process that is killed leaves a readable folder behind.
Whoever goes on with the run writes the logs anew, from the checkpoint.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TextIO

from safetensors.torch import save
from torch import Tensor

from diffstruct import checkpoint
from diffstruct.checkpoint.folder import numbered
from diffstruct.errors import CheckpointError, RunFolderError
from diffstruct.history import Event, History, Measurement
from diffstruct.paper.locking import LOCKS, lock
from diffstruct.paper.sample_log import SampleLog
from diffstruct.writing import replace_file

LOGS = ("history.csv", "events.jsonl")
STATE = "checkpoint"
FORMAT = 2
"""Of what a checkpoint holds; raised when that changes its meaning."""
ENDED = ("finished", "diverged")
"""What a run is that cannot be gone on with, by its status."""
FILES = ("run.json", "history.csv", "events.jsonl", "importances.jsonl", "model.safetensors", "units.png")
PAGE = "report.html"
"""What `diffstruct report` and `--watch` put there; of a run that is replaced it goes too."""


class FinishedError(RunFolderError):
    """There is nothing to go on with: the run is finished."""


class RunFolder:
    """An open run folder, which no other process can open meanwhile; a context manager, which closes it.

    Args:
        path: the folder; made, with its parents, if it is not there.
        overwrite: whether a run that the folder already holds may be replaced.
        resume: whether to go on with the run that it holds. Nothing in it changes then until `log_again`.

    Raises:
        RunFolderError: the folder holds a run, or none that can be gone on with; another process is at work
            in it; or it cannot be written.
    """

    def __init__(self, path: Path, overwrite: bool = False, resume: bool = False) -> None:
        self.path = path
        self._state = path / STATE
        self._samples = SampleLog(path / "importances.jsonl", replace_file)
        try:
            held = [name for name in (*FILES, STATE) if (path / name).exists()]
            if resume and not held:
                begin = f"diffstruct grow TASK --out {shlex.quote(str(path))}"
                raise RunFolderError(f"{path} holds no run: begin one with {begin}")
            if held and not (overwrite or resume):
                raise RunFolderError(
                    f"{path} already holds a run ({held[0]}): choose another folder with --out, "
                    "go on with it with --resume, or replace it with --overwrite"
                )
            if resume and not self._state.exists():
                self._refuse()
            path.mkdir(parents=True, exist_ok=True)
            # Neither is opened to be written from the beginning, lest the log of a run in progress be lost.
            self._history: TextIO = (path / "history.csv").open("a", encoding="utf-8")
            self._events: TextIO = (path / "events.jsonl").open("a", encoding="utf-8")
            try:
                lock(self._history, path)
                if resume and (self._status() in ENDED or not numbered(self._state)):
                    self._refuse()
                if not resume:
                    self._clear()
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise _cannot_write(path, error) from error

    def _status(self) -> str:
        try:
            return str(json.loads((self.path / "run.json").read_bytes())["status"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""  # the file is written again, and all that counts is in the checkpoint

    def _refuse(self) -> NoReturn:
        """Say why the run cannot be gone on with."""
        status = self._status()
        if status in ENDED:
            self.forget_state()  # if it was killed just before the last thing that there was to do
        if status == "finished":
            raise FinishedError(f"the run in {self.path} is finished: there is nothing to go on with")
        if status == "diverged":
            raise RunFolderError(
                f"the run in {self.path} has diverged, and would again: begin anew with --overwrite and "
                "another seed or another rule"
            )
        raise RunFolderError(
            f"the run in {self.path} cannot be resumed: it has no checkpoint, since it was killed before its "
            "first one, or made by a version that wrote none; begin anew with --overwrite"
        )

    def _clear(self) -> None:
        # The state first: a log that has begun anew must not be taken for what the state goes on from.
        self.forget_state()
        for name in (*FILES, PAGE):
            if name not in LOGS:
                (self.path / name).unlink(missing_ok=True)
        self._begin_logs()

    def _begin_logs(self) -> None:
        for log in (self._history, self._events):
            log.truncate(0)
        self._history.write("cycle,loss,units\n")

    def append(self, history: History, events: Sequence[Event]) -> None:
        """Log the last measurement of a history, the events since the one before, and what is new of samples.

        Raises:
            RunFolderError: the disk refuses.
        """
        try:
            self._write(events, history.measurements[-1:])
            self._samples.write(history)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def log_again(self, history: History) -> None:
        """Begin the logs anew, with what a run has measured and changed until the state that it goes on from.

        They hold that already, and perhaps more: what was logged after the state was saved, and the
        beginning of a line that a killed process did not finish.

        Raises:
            RunFolderError: the disk refuses.
        """
        try:
            self._begin_logs()
            self._write(history.events, history.measurements)
            self._samples.write(history)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def _write(self, events: Sequence[Event], measurements: Sequence[Measurement]) -> None:
        for event in events:
            fields = asdict(event)
            # The file has its own name for the step.
            self._events.write(json.dumps({"update": fields.pop("step"), **fields}) + "\n")
        for row in measurements:
            self._history.write(f"{row.update},{row.loss:.6f},{row.units}\n")
        self._events.flush()
        self._history.flush()

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

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Save all that the run needs to be gone on with, in the place of what was saved before.

        Windows has no locks that checkpoints could be saved with; a run cannot be gone on with there.

        Raises:
            RunFolderError: the disk refuses; what was saved before is still whole.
        """
        if LOCKS:
            try:
                checkpoint.save(self._state, keep=2, format=FORMAT, **state)
            except CheckpointError as error:
                raise RunFolderError(str(error)) from error

    def load_state(self) -> dict[str, Any]:
        """What `save_state` has saved.

        Raises:
            RunFolderError: it is damaged, or of another version.
        """
        newest, *earlier = numbered(self._state)
        try:
            state = checkpoint.load(newest)
        except CheckpointError as error:
            what = str(error).split(". ")[0]
            there_is = f"remove {newest}, and --resume goes on from the one before, to the same end"
            advice = there_is if earlier else "begin anew with --overwrite"
            raise RunFolderError(f"{what}; {advice}") from error
        if state.pop("format", None) != FORMAT:
            raise RunFolderError(
                f"{newest} was made by another version of diffstruct, {state.get('made_with')}: go on with "
                "that one, or begin anew with --overwrite"
            )
        return state

    def forget_state(self) -> None:
        """Remove what `save_state` has saved: the run is over, or begins anew."""
        if self._state.exists():
            shutil.rmtree(self._state)

    def close(self) -> None:
        """Close the logs, and let other processes open the folder."""
        self._events.close()
        self._history.close()  # with the lock

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _cannot_write(path: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"cannot write the run folder {path}: {error.strerror or error}; "
        "choose another folder with --out, or make room there"
    )
