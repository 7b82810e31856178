"""What a run is made of, in plain values: enough to build it again, in another process."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

import torch

from diffstruct.errors import ConfigurationError, DataError
from diffstruct.paper.revisions import get_revision
from diffstruct.paper.tasks import NAMES, Phase, Task
from diffstruct.rule import Rule
from diffstruct.version import installed_version

Reads: TypeAlias = str | os.PathLike[str] | Task | Sequence[Phase]
"""What a run may be told to read."""


@dataclass(frozen=True)
class Settings:
    """The settings of a run.

    Args:
        name: what the run is called, by what it reads.
        task: the name of the task; None where it is none of those that have names.
        file: the absolute path of the text file, if there is one.
        phases: of each the first step, the alphabet, and how many characters its text has.
        revision: as in `Run`, as are `cycles` and `seed`.
        rule: all of it.
    """

    name: str
    task: str | None
    file: str | None
    phases: tuple[tuple[int, str, int], ...]
    revision: int | None
    cycles: int
    seed: int
    rule: Rule

    @staticmethod
    def of(
        reads: Reads,
        name: str,
        phases: Sequence[Phase],
        revision: int | None,
        cycles: int,
        seed: int,
        rule: Rule,
    ) -> Settings:
        """The settings of a run that reads `reads`, which came to this `name` and these `phases`."""
        named = reads if isinstance(reads, str) and reads in NAMES else None
        is_file = named is None and isinstance(reads, (str, os.PathLike))
        return Settings(
            name,
            named,
            os.path.abspath(os.fspath(reads)) if is_file else None,  # type: ignore[arg-type]
            tuple((phase.start, phase.task.alphabet, phase.task.length) for phase in phases),
            revision,
            cycles,
            seed,
            rule,
        )

    @staticmethod
    def read(plain: Mapping[str, Any]) -> Settings:
        """The settings that `plain` wrote."""
        phases = tuple((start, alphabet, length) for start, alphabet, length in plain["phases"])
        return Settings(**{**plain, "phases": phases, "rule": Rule(**plain["rule"])})

    def plain(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        return {**asdict(self), "phases": [list(phase) for phase in self.phases]}

    def reads(self, given: Reads | None) -> Reads:
        """What the run reads: what is `given`, or else what it was told in the beginning.

        Raises:
            DataError: the text file is gone.
            ConfigurationError: it read a task or phases that were made in Python, and they are not given.
        """
        if given is not None:
            return given
        if self.task is not None:
            return self.task
        if self.file is None:
            raise ConfigurationError(
                "the run reads a task that was made in Python: give it again, Run.resume(folder, task=...)"
            )
        if not Path(self.file).exists():
            raise DataError(
                f"the text that the run reads is gone: put {self.file!r} back, or name the file where it is "
                "now, diffstruct grow FILE --resume RUN"
            )
        return self.file

    def check(self, expected: Mapping[str, Any]) -> None:
        """Make sure that the settings are those expected, by name; `price` is the threshold of our own way.

        Raises:
            ConfigurationError: one is another.
        """
        rule = self.rule.filled(get_revision(self.revision).criterion.default_rule)
        price = {"price": rule.threshold} if self.revision is None else {}
        known = {**vars(rule), **price, "revision": self.revision, "cycles": self.cycles, "seed": self.seed}
        for name, value in expected.items():
            if value is not None and value != known.get(name):
                raise ConfigurationError(
                    f"the run was begun with {name} {known.get(name)}, and cannot be resumed with {value}: "
                    "leave that out, or begin another run"
                )

    def check_reads(self, now: Settings) -> None:
        """Make sure that a run which is built `now` reads what this one has read.

        Raises:
            ConfigurationError: it reads another task.
            DataError: what it reads has changed.
        """
        if now.task != self.task:
            before, after = self.task or self.file or self.name, now.task or now.file or now.name
            raise ConfigurationError(f"the run reads {before}, and cannot be resumed with {after}")
        if now.phases != self.phases:
            raise changed_text(now.file)


def changed_text(file: str | None) -> DataError:
    """The error where a text is not the one that a run has read."""
    what = "the task" if file is None else f"the text in {file!r}"
    return DataError(
        f"{what} is not what the run has read so far: put back what it was, or begin anew with --overwrite"
    )


@cache  # they stay the same, and looking them up takes time
def versions() -> dict[str, str]:
    """The versions of what a run is computed by."""
    return {
        "diffstruct": installed_version(),
        "torch": str(torch.__version__),
        "numpy": version("numpy"),
        "numba": _numba(),
        "python": platform.python_version(),
    }


def made_with(loop: str) -> dict[str, str]:
    """All that the bits of a run may depend on, beside its settings; `loop` is the training loop's name."""
    processor = f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"
    return {**versions(), "loop": loop, "processor": processor}


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What is not as it was, in words; empty where all is."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} was {before.get(name)}, is {now.get(name)}" for name in names)


def _numba() -> str:
    try:
        return version("numba")
    except PackageNotFoundError:
        return "none"
