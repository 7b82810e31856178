"""The rule's evidence, every number of it: `python experiments/rule --help`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grid import QUICK, Setting, settings
from joblib import Parallel, delayed
from report import write

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not there yet, and write tables and figures of all there is; 1 if a run failed."""
    options = _parse(arguments)
    every = [*settings()]
    chosen = [each for each in every if not options.study or each.study.split(":")[0] in options.study]
    jobs = [
        (setting, seed)
        for seed in range(max(setting.seeds for setting in chosen))
        for setting in chosen
        if seed < min(setting.seeds, options.seeds or setting.seeds)
    ]
    waiting = [job for job in jobs if not _file(options.out, *job).exists()]
    print(f"{len(jobs)} runs, {len(waiting)} of them still to be made", flush=True)
    begin, failed = time.monotonic(), 0
    runs = Parallel(n_jobs=options.jobs, return_as="generator_unordered")(
        delayed(_run)(options.out, setting, seed, QUICK if options.quick else 1) for setting, seed in waiting
    )
    for done, (name, error) in enumerate(runs, 1):
        failed += error is not None
        left = (time.monotonic() - begin) / done * (len(waiting) - done)
        print(f"{done}/{len(waiting)}, {left / 60:.0f} min left: {name} {error or ''}".rstrip(), flush=True)
    results: dict[Setting, list[dict[str, Any]]] = {}
    for setting in every:
        files = [_file(options.out, setting, seed) for seed in range(setting.seeds)]
        if any(file.exists() for file in files):
            results[setting] = [json.loads(file.read_text()) for file in files if file.exists()]
    write(options.out, results)
    return 1 if failed else 0


def _file(out: Path, setting: Setting, seed: int) -> Path:
    name = "".join(c if c.isalnum() or c in ".-" else "_" for c in f"{setting.study}--{setting.name}")
    return out / "runs" / f"{name}--{seed}.json"


def _run(out: Path, setting: Setting, seed: int, shorter: int) -> tuple[str, str | None]:
    """Make one run and put its result in its file; its name, and what went wrong."""
    name = f"{setting.study}, {setting.name}, seed {seed}"
    try:
        begin = time.monotonic()
        result = setting.run(seed, shorter)
        result["seconds"] = time.monotonic() - begin
    except Exception as error:  # the other runs go on, and this one is reported
        return name, f"failed: {error!r}"
    file = _file(out, setting, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(result))
    part.rename(file)
    return name, None


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    studies = [*dict.fromkeys(setting.study.split(":")[0] for setting in settings())]
    parser = argparse.ArgumentParser(
        prog="python experiments/rule", description="The evidence for the rule: all runs, tables and figures."
    )
    parser.add_argument("study", nargs="*", help=f"of {', '.join(studies)}; all unless named")
    parser.add_argument("--seeds", type=int, help="at most so many of each setting")
    parser.add_argument("--quick", action="store_true", help=f"runs {QUICK} times shorter, one seed")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side (default: 2)")
    parser.add_argument("--out", type=Path, help="folder of the results (default: where this file is)")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.study if name not in studies]
    if unknown:
        parser.error(f"there is no study {unknown[0]!r}: the studies are {', '.join(studies)}")
    if options.seeds is not None and options.seeds < 1:
        parser.error("--seeds must be at least 1")
    if options.quick:
        options.seeds = 1
    if options.out is None:  # what is only tried must not take the place of results
        options.out = Path("runs/rule-quick") if options.quick else HERE
    options.out.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    sys.exit(main())
