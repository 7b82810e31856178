"""Learned widths beside fixed ones: `python experiments/widths --help`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from figure import draw
from report import report
from runs import jobs_of, make, valid
from studies import STUDIES
from summary import summarise

sys.path.insert(0, str(Path(__file__).parents[1]))
from sweep import Options, complete


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the missing runs, and write tables and figure of all that are finished; 1 if a run failed."""
    parser = Options(
        Path(__file__).parent,
        "Learned widths beside fixed ones.",
        STUDIES,
        seeds="of each setting (default: 10, three of bytes-lm)",
        quick="a few updates of each, to see that it works",
    )
    parser.add_argument("--fixed", action="store_true", help="only the fixed sizes")
    options = parser.read(arguments)
    chosen = {name: study for name, study in STUDIES.items() if name in options.study}
    files = {
        job: job.file
        for study in chosen.values()
        for job in jobs_of(study, options.seeds or study.seeds, options.quick)
        if not (options.fixed and job.size is None)
    }
    results, failed = complete(make, options.out, files, options.jobs, valid)
    whole = {
        name: study
        for name, study in chosen.items()
        if {True, False} <= {job.size is None for job in results if job.study == name}
    }
    if whole:
        summaries = {name: summarise(study, results) for name, study in whole.items()}
        command = " ".join(["python experiments/widths", *([] if len(whole) == len(STUDIES) else whole)])
        (options.out / "RESULTS.md").write_text(report(whole, summaries, command))
        (options.out / "summary.json").write_text(json.dumps(summaries, indent=1) + "\n")
        (options.out / "figure.png").write_bytes(draw(whole, summaries, results))
        print(f"wrote {options.out / 'RESULTS.md'}, summary.json and figure.png")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
