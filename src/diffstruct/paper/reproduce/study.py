"""The whole reproduction: make the runs that are missing, then write tables and figures of those finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffstruct.paper.reproduce.backends import workers
from diffstruct.paper.reproduce.curves import as_text, curves_of, draw_panel
from diffstruct.paper.reproduce.grid import GridProgress, run
from diffstruct.paper.reproduce.results import write_results
from diffstruct.paper.reproduce.settings import Panel, jobs
from diffstruct.paper.reproduce.store import Store
from diffstruct.paper.reproduce.summary import group, summarize


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
        """Write summary, tables, curves and figures of what is finished; return the summary.

        Raises:
            RunFolderError: the disk refuses.
        """
        results = self.progress.results.values()
        summary = summarize(self.panels, self.jobs, results, self.progress.failures.values())
        self.store.write("summary.json", (json.dumps(summary, indent=2) + "\n").encode())
        self.store.write("RESULTS.md", write_results(summary).encode())
        curves = curves_of(self.panels, group(results))
        self.store.write("curves.json", as_text(curves).encode())
        for panel in self.panels:
            for form, content in draw_panel(panel, curves).items():
                self.store.write(f"figures/{panel.name}.{form}", content)
        return summary
