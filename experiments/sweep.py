"""What the experiments share: their options, and many runs, each kept in a file as soon as it is finished."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from diffstruct.paper.reproduce.side_by_side import Done, side_by_side
from diffstruct.writing import replace_file

Job = TypeVar("Job")
Record = dict[str, Any]
"""The result of a run, as JSON can hold it."""


class Options(argparse.ArgumentParser):
    """The options of an experiment.

    Args:
        folder: that holds the experiment.
        description: of the experiment.
        studies: their names.
        seeds: help of `--seeds`.
        quick: help of `--quick`.
    """

    def __init__(
        self, folder: Path, description: str, studies: Iterable[str], seeds: str, quick: str
    ) -> None:
        super().__init__(prog=f"python experiments/{folder.name}", description=description)
        self.folder, self.studies = folder, [*dict.fromkeys(studies)]
        self.add_argument("study", nargs="*", help=f"of {', '.join(self.studies)}; all unless named")
        self.add_argument("--seeds", type=int, help=seeds)
        self.add_argument("--quick", action="store_true", help=quick)
        self.add_argument("--jobs", type=int, default=2, help="runs side by side (default: 2)")
        self.add_argument("--out", type=Path, help="folder of the results (default: where this file is)")

    def read(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parse and check; without studies named, all are meant, and a quick run has one seed."""
        options = self.parse_args(arguments)
        options.study = options.study or self.studies
        unknown = [name for name in options.study if name not in self.studies]
        if unknown:
            self.error(f"there is no study {unknown[0]!r}: the studies are {', '.join(self.studies)}")
        if options.seeds is not None and options.seeds < 1:
            self.error("--seeds must be at least 1")
        if options.quick and options.seeds is None:
            options.seeds = 1
        if options.out is None:  # a quick run must not take the place of results
            options.out = Path(f"runs/{self.folder.name}-quick") if options.quick else self.folder
        options.out.mkdir(parents=True, exist_ok=True)
        return options


def load(out: Path, files: Mapping[Job, Path]) -> dict[Job, Record]:
    """The records of those jobs whose file is in the folder `out`."""
    return {
        job: json.loads((out / file).read_bytes()) for job, file in files.items() if (out / file).exists()
    }


def complete(
    make: Callable[[Job], Record],
    out: Path,
    files: Mapping[Job, Path],
    workers: int,
    valid: Callable[[Job, Record], bool] = lambda job, record: True,
) -> tuple[dict[Job, Record], bool]:
    """Make the runs that are missing, and print how far they are.

    Args:
        make: makes the run of a job; picklable.
        out: the folder of the results.
        files: each job's file in that folder, in the order in which to run them.
        workers: runs side by side.
        valid: whether a record that is found need not be made again.

    Returns:
        Every record that there is now, and whether a run failed.
    """
    records = {job: record for job, record in load(out, files).items() if valid(job, record)}
    missing = [job for job in files if job not in records]
    print(f"{len(missing)} runs to do, {len(records)} found in {out / 'runs'}", flush=True)
    begin, failed = time.monotonic(), False
    for done, outcome in enumerate(side_by_side(make, missing, workers), 1):
        file = files[outcome.job]
        if isinstance(outcome, Done):
            records[outcome.job] = outcome.value
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            replace_file(out / file, json.dumps(outcome.value).encode() + b"\n")
            left = (time.monotonic() - begin) / done * (len(missing) - done)
            told = f"{done} of {len(missing)}, {left / 60:.0f} min left"
            print(f"{told}: {file.with_suffix('')}, {outcome.seconds:.1f} s", flush=True)
        else:
            failed = True
            print(f"failed: {file.with_suffix('')}: {outcome.error}", file=sys.stderr, flush=True)
    return records, failed
