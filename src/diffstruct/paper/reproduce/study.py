"""The whole reproduction: make the runs that are missing, then write tables and figures of those finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffstruct.paper.figures.bands import Band, draw, picture
from diffstruct.paper.reproduce.backends import workers
from diffstruct.paper.reproduce.grid import GridProgress, run
from diffstruct.paper.reproduce.results import write_results
from diffstruct.paper.reproduce.runs import Result
from diffstruct.paper.reproduce.settings import Panel, jobs, phases
from diffstruct.paper.reproduce.store import Store
from diffstruct.paper.reproduce.summary import Groups, group, summarize

_TITLES = {
    "easy": "Easy",
    "hard": "Hard",
    "fixed": "Hard, learned and fixed sizes",
    "transition": "Easy, then hard, then easy",
}


class Study:
    """Some of the paper's figures, and the folder that holds their runs.

    Args:
        shown: which figures, of which revisions.
        out: the folder; runs that it holds are not made again.
        seeds: runs of each setting.
        cycles: steps of each run; None for the revision's.

    Raises:
        ConfigurationError: a number that cannot work, or the folder holds runs of other cycles.
        RunFolderError: the folder cannot be written.
    """

    def __init__(self, shown: Sequence[Panel], out: Path, seeds: int = 20, cycles: int | None = None) -> None:
        self.panels = shown
        self.jobs = jobs(shown, seeds, cycles)
        self.store = Store(out)
        found = self.store.load(self.jobs)
        self.progress = GridProgress(self.jobs, results=found, found=len(found))

    def go(
        self,
        backend: str = "loky",
        side_by_side: int | None = None,
        observe: Callable[[GridProgress], None] = lambda progress: None,
    ) -> None:
        """Make the runs that are missing.

        Args:
            backend: see `backends.workers`.
            side_by_side: how many runs at a time; None for as many as there are cores.
            observe: called after each run.

        Raises:
            ConfigurationError: the backend cannot be had.
            KeyboardInterrupt: the user stopped it.
            RunFolderError: the disk refuses.
        """
        with workers(backend, side_by_side) as count:
            run(self.jobs, self.store, count, self.progress, observe)

    def write(self) -> dict[str, Any]:
        """Write `summary.json`, `RESULTS.md` and the figures from what is finished; return the summary.

        Raises:
            RunFolderError: the disk refuses.
        """
        results = self.progress.results.values()
        summary = summarize(self.panels, self.jobs, results, self.progress.failures.values())
        self.store.write("summary.json", (json.dumps(summary, indent=2) + "\n").encode())
        self.store.write("RESULTS.md", write_results(summary).encode())
        groups = group(results)
        for panel in self.panels:
            for form, content in _draw(panel, groups).items():
                self.store.write(f"figures/{panel.name}.{form}", content)
        return summary


def _draw(panel: Panel, groups: Groups) -> dict[str, bytes]:
    """The figure of a panel in each form; none if nothing of it is finished."""
    shown = [setting for setting in panel.settings if groups.get(setting)]
    if not shown:
        return {}
    bands = [band(setting.label, groups[setting]) for setting in shown]
    seeds = sorted({len(groups[setting]) for setting in shown})
    runs = f"{seeds[0]} run{'s' if seeds[-1] > 1 else ''}"
    if len(seeds) > 1:
        runs = f"{seeds[0]} to {seeds[-1]} runs"
    title = f"{_TITLES[panel.figure]}, revision {panel.revision}: median and quartiles of {runs}"
    job = groups[shown[0]][0].job
    figure = draw(title, bands, phases(job), units=panel.figure != "fixed")
    return {form: picture(figure, form) for form in ("png", "svg")}


def band(label: str, results: Sequence[Result]) -> Band:
    """Quartiles over the runs of one setting, point by point."""
    updates = np.array([measurement.update for measurement in results[0].curve])
    losses = np.array([[measurement.loss for measurement in result.curve] for result in results])
    units = np.array([[measurement.units for measurement in result.curve] for result in results])
    marks = (0.25, 0.5, 0.75)
    return Band(label, updates, np.quantile(losses, marks, axis=0), np.quantile(units, marks, axis=0))
