"""Exact resume, proved by killing: `python experiments/resume --help`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import grows
import loops
import torch
from kills import Trial, alone, endure

CASES = [*grows.CASES, *loops.CASES]
MOST_KILLS = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Interrupt runs at random, compare what comes out, and write a table; 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python experiments/resume", description=__doc__)
    parser.add_argument("case", nargs="*", help="those whose name begins so (default: all)")
    parser.add_argument("--trials", type=int, default=200, help="in all (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the table")
    options = parser.parse_args(arguments)
    begins = tuple(options.case) or ("",)
    cases = [case for case in CASES if case.startswith(begins)]
    if not cases or options.trials < 1:
        parser.error(f"there must be a trial and a case, of {', '.join(CASES)}")
    torch.set_num_threads(1)
    grows.prepare()
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        options.out.mkdir(parents=True, exist_ok=True)
        trials = []
        for trial in _trials(Path(folder), cases, options.trials, random.Random(options.seed)):
            trials.append(trial)
            (options.out / "RESULTS.md").write_text("\n".join(report(trials)) + "\n")
    print(f"wrote {options.out / 'RESULTS.md'}")
    return 1 if any(trial.differences for trial in trials) else 0


def _memory() -> str | None:
    """A folder in memory, where there is one: hundreds of savings a second would wait for a disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _trials(folder: Path, cases: Sequence[str], many: int, chance: random.Random) -> Iterator[Trial]:
    for number, case in enumerate(islice(cycle(cases), many)):
        seed = number // len(cases)  # another one in each round
        trial = _trial(folder / f"{number}", case, seed, chance)
        differences, endured = ", ".join(trial.differences), trial.endured
        print(
            f"{number + 1} of {many}: {case}: {endured.killed} killed, {endured.stopped} stopped, "
            f"{trial.changes} changes, {differences + ' differ' if differences else 'the same'}",
            flush=True,
        )
        yield trial


def _trial(place: Path, case: str, seed: int, chance: random.Random) -> Trial:
    """A run without, and one with interruptions: one at least."""
    one = place / "one"
    one.mkdir(parents=True)
    module: Any = grows if case in grows.CASES else loops
    seconds = alone(partial(module.begin, one, case, seed))
    for attempt in count():
        other = place / f"other-{attempt}"
        other.mkdir()
        begin, again = module.work(other, case, seed, chance)
        endured = endure(begin, again, chance, seconds, chance.randint(1, MOST_KILLS))
        if endured.killed + endured.stopped > 0:
            break
    return Trial(case, endured, module.changes(one), module.differences(one, other))


def report(trials: Sequence[Trial]) -> list[str]:
    """The table."""
    exact = sum(not trial.differences for trial in trials)
    lines = [
        "# Exact resume",
        "",
        f"{exact} of {len(trials)} interrupted runs came out the same, bit for bit, as without interruption.",
        "",
        "| | runs | SIGKILLs | SIGTERMs | begun anew | changes of sizes a run | the same |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in dict.fromkeys(trial.case for trial in trials):
        own = [trial for trial in trials if trial.case == case]
        changed = sum(trial.changes for trial in own) / len(own)
        same = sum(not trial.differences for trial in own)
        endured = [trial.endured for trial in own]
        sums = (sum(getattr(each, name) for each in endured) for name in ("killed", "stopped", "anew"))
        counts = " | ".join(map(str, sums))
        lines.append(f"| {case} | {len(own)} | {counts} | {changed:.0f} | {same} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
