"""The folder of a reproduction: one file a finished run, each written whole and at once.

| file | content |
|---|---|
| `runs/SETTING/seed-NNN.json` | a finished run: settings, final figures, its curve |
| `summary.json` | medians, quartiles and tests, beside the paper's numbers |
| `RESULTS.md` | the same as tables |
| `figures/FIGURE-rREVISION.png`, `.svg` | the figures |
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from diffstruct.errors import ConfigurationError, RunFolderError
from diffstruct.paper.reproduce.runs import Result, from_record, to_record
from diffstruct.paper.reproduce.settings import Job
from diffstruct.writing import replace_file


class Store:
    """Reads and writes the folder.

    Args:
        path: the folder; made, with its parents, if it is not there.

    Raises:
        RunFolderError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            (path / "runs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._refused(error) from error

    def load(self, jobs: Iterable[Job]) -> dict[Job, Result]:
        """The finished runs among `jobs`; a file that is damaged counts as none.

        Raises:
            ConfigurationError: a file holds a run of other cycles.
        """
        found = {}
        for job in jobs:
            file = self._file(job)
            try:
                result = from_record(json.loads(file.read_bytes()))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # half a disk block, an edit gone wrong: the run is made anew
            held = result.job
            if (held.setting, held.seed) == (job.setting, job.seed) and held.cycles != job.cycles:
                raise ConfigurationError(
                    f"{file} holds a run of {held.cycles} cycles, but {job.cycles} are asked for: "
                    f"choose another folder with --out, ask for --cycles {held.cycles}, "
                    f"or delete {self.path / 'runs'}"
                )
            if held == job:
                found[job] = result
        return found

    def save(self, result: Result) -> None:
        """Keep a finished run.

        Raises:
            RunFolderError: the disk refuses.
        """
        target = self._file(result.job).relative_to(self.path)
        self.write(target, json.dumps(to_record(result)).encode() + b"\n")

    def write(self, name: str | Path, content: bytes) -> None:
        """Put a whole file in the folder, in the place of its former version if there is one.

        Raises:
            RunFolderError: the disk refuses; the former version is still whole.
        """
        target = self.path / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, content)
        except OSError as error:
            raise self._refused(error) from error

    def _file(self, job: Job) -> Path:
        return self.path / "runs" / job.setting.name / f"seed-{job.seed:03}.json"

    def _refused(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"cannot write the folder {self.path}: {error.strerror or error}; "
            "choose another folder with --out, or make room there"
        )
