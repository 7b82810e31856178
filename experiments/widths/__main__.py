"""Learned structure beside uniform sizes and Torch-Pruning: `python experiments/widths --help`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from figure import draw
from report import report
from runs import jobs_of, make, valid
from studies import STUDIES
from summary import overall, summarise

sys.path.insert(0, str(Path(__file__).parents[1]))
from sweep import Options, complete


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the missing runs, and write tables and figure of all seeds that are whole; 1 if a run failed."""
    parser = Options(
        Path(__file__).parent,
        "Learned structure beside uniform sizes and Torch-Pruning.",
        STUDIES,
        seeds="of each study (default: 10, three of the language models)",
        quick="a few updates of some runs, to see that it works",
    )
    options = parser.read(arguments)
    chosen = {name: study for name, study in STUDIES.items() if name in options.study}
    files = {job: job.file for job in jobs_of(chosen.values(), options.seeds, options.quick)}
    results, failed = complete(make, options.out, files, options.jobs, valid)
    found = {name: summarise(study, results, options.quick) for name, study in chosen.items()}
    summaries = {name: summary for name, summary in found.items() if summary is not None}
    if summaries:
        command = " ".join(
            ["python experiments/widths", *([] if len(summaries) == len(STUDIES) else summaries)]
        )
        (options.out / "RESULTS.md").write_text(report(chosen, summaries, command))
        whole = {"overall": overall(summaries), "studies": summaries}
        (options.out / "summary.json").write_text(json.dumps(whole, indent=1) + "\n")
        (options.out / "figure.png").write_bytes(draw(summaries))
        print(f"wrote {options.out / 'RESULTS.md'}, summary.json and figure.png")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
