"""Learned widths beside fixed ones: `python experiments/widths --help`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from figure import draw
from report import report
from runs import jobs_of, run_all
from studies import STUDIES
from summary import summarise

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not there yet, and write tables and figure from all there is; 1 if a run failed."""
    options = _parse(arguments)
    chosen = {name: study for name, study in STUDIES.items() if name in (options.study or STUDIES)}
    jobs = [
        job
        for study in chosen.values()
        for job in jobs_of(study, options.seeds or (1 if options.quick else study.seeds), options.quick)
        if not (options.fixed and job.size is None)
    ]
    results, failures = run_all(jobs, options.out, options.jobs)
    for job, error in failures.items():
        print(f"failed: {job.file.with_suffix('')}: {error}", file=sys.stderr)
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
    return 1 if failures else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python experiments/widths", description="Learned widths beside fixed ones."
    )
    parser.add_argument("study", nargs="*", help=f"of {', '.join(STUDIES)}; all unless named")
    parser.add_argument("--seeds", type=int, help="of each setting (default: 10, three of bytes-lm)")
    parser.add_argument("--quick", action="store_true", help="a few updates of each, to see that it works")
    parser.add_argument("--fixed", action="store_true", help="only the fixed sizes")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side (default: 2)")
    parser.add_argument("--out", type=Path, help="folder of the results (default: where this file is)")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.study if name not in STUDIES]
    if unknown:
        parser.error(f"there is no study {unknown[0]!r}: the studies are {', '.join(STUDIES)}")
    if options.seeds is not None and options.seeds < 1:
        parser.error("--seeds must be at least 1")
    if options.out is None:  # what is only tried must not take the place of results
        options.out = Path("runs/widths-quick") if options.quick else HERE
    options.out.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    sys.exit(main())
