"""The log of what each unit was worth, `importances.jsonl` of a run folder: a line per sample."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from diffstruct.history import History, Sample


class SampleLog:
    """Follows the samples of a history: appends new ones, and writes all anew where some were dropped.

    Args:
        path: of the file; the first time, it is written anew.
        replace: puts a whole file in the place of its former version.
    """

    def __init__(self, path: Path, replace: Callable[[Path, bytes], None]) -> None:
        self.path, self._replace = path, replace
        self._every, self._written = 0, 0

    def write(self, history: History) -> None:
        """Bring the file up to date.

        Raises:
            OSError: the disk refuses.
        """
        samples, every = history.samples, history.sampling.every
        if every != self._every:  # none was written, or some of those have been dropped
            self._replace(self.path, _lines(samples))
        elif len(samples) > self._written:
            with self.path.open("ab") as file:
                file.write(_lines(samples[self._written :]))
        self._every, self._written = every, len(samples)


def _lines(samples: Sequence[Sample]) -> bytes:
    return "".join(json.dumps(_plain(sample)) + "\n" for sample in samples).encode()


def _plain(sample: Sample) -> dict[str, object]:
    """A sample as a line of the log, its importances to four figures."""
    importances = {
        name: [float(f"{value:.4g}") for value in values.tolist()]
        for name, values in sample.importances.items()
    }
    return {
        "update": sample.step,
        "events": sample.events,
        "importances": importances,
        "thresholds": dict(sample.thresholds),
    }
