"""A summary of the runs: medians, quartiles and tests, beside the paper's numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu

from diffstruct.paper.reproduce.runs import Result
from diffstruct.paper.reproduce.settings import OFF_PLATEAU, PAPER, Job, Panel, Setting, ends, phases
from diffstruct.paper.reproduce.side_by_side import Failure
from diffstruct.paper.tasks import SEQUENCE

Groups = Mapping[Setting, Sequence[Result]]
"""The finished runs of each setting."""


def group(results: Iterable[Result]) -> dict[Setting, list[Result]]:
    """The runs by setting, in order of seed."""
    groups: dict[Setting, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.job.seed):
        groups.setdefault(result.job.setting, []).append(result)
    return groups


def summarize(
    panels: Iterable[Panel], jobs: Sequence[Job], results: Iterable[Result], failures: Iterable[Failure[Job]]
) -> dict[str, Any]:
    """The numbers behind all figures, as JSON can hold them.

    Args:
        panels: the figures to show.
        jobs: all runs that were asked for.
        results: the finished runs, in any order.
        failures: the runs that failed.
    """
    groups, failures = group(results), list(failures)
    finished = [result for each in groups.values() for result in each]
    figures: dict[str, dict[str, Any]] = {}
    for panel in panels:
        figures.setdefault(panel.figure, {})[str(panel.revision)] = _panel(panel, groups)
    return {
        "loss_unit": f"nats per {SEQUENCE} characters, smoothed",
        "runs": {"asked": len(jobs), "finished": len(finished), "failed": len(failures)},
        "seconds_of_all_runs": round(sum(result.seconds for result in finished), 3),
        "machines": sorted({result.machine for result in finished}),
        "versions": {
            name: sorted({result.versions[name] for result in finished})
            for name in sorted({name for result in finished for name in result.versions})
        },
        "failures": [
            {**asdict(each.job.setting), "seed": each.job.seed, "error": each.error} for each in failures
        ],
        "figures": figures,
    }


def _panel(panel: Panel, groups: Groups) -> dict[str, Any]:
    learned = groups.get(panel.settings[0], [])
    settings = []
    for setting in panel.settings:
        results = groups.get(setting, [])
        row = _setting(setting, results)
        if setting.fixed_units is not None:
            row["learned_size_is_better"] = lower(
                [r.last.loss for r in learned], [r.last.loss for r in results]
            )
        settings.append(row)
    reported = asdict(PAPER[panel.figure, panel.revision])
    return {"paper": {**reported, "units": list(reported["units"])}, "settings": settings}


def _setting(setting: Setting, results: Sequence[Result]) -> dict[str, Any]:
    row: dict[str, Any] = {**asdict(setting), "seeds": len(results)}
    if not results:
        return row
    job = results[0].job
    row["cycles"] = job.cycles
    row["loss"] = quartiles([result.last.loss for result in results])
    row["units"] = quartiles([result.last.units for result in results])
    row["units_added"] = quartiles([result.added for result in results])
    row["units_removed"] = quartiles([result.removed for result in results])
    read = phases(job)
    row["floor"], row["plateau"] = _per_sequence(read[-1].task.floor), _per_sequence(read[-1].task.plateau)
    if setting.task == "hard":
        below = [result.last.loss < OFF_PLATEAU for result in results]
        row["off_plateau"] = sum(below) / len(below)
    if len(read) > 1:
        row["most_units"] = quartiles([max(m.units for m in result.curve) for result in results])
        row["phases"] = [
            {
                "task": phase.task.name,
                "until": end,
                "loss": quartiles([result.at(end).loss for result in results]),
                "units": quartiles([result.at(end).units for result in results]),
                "floor": _per_sequence(phase.task.floor),
                "plateau": _per_sequence(phase.task.plateau),
            }
            for phase, end in zip(read, ends(job), strict=True)
        ]
    seconds = [result.seconds for result in results]
    row["seconds"] = {"median": round(float(np.median(seconds)), 3), "total": round(sum(seconds), 3)}
    return row


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles, interpolated linearly between ranks."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "q25": low, "q75": high}


def lower(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float | None]:
    """Mann-Whitney U of `ours`, and the one-sided p-value of "ours are lower"; None below two seeds."""
    if min(len(ours), len(theirs)) < 2:
        return {"u": None, "p": None}
    test = mannwhitneyu(ours, theirs, alternative="less")
    return {"u": float(test.statistic), "p": float(test.pvalue)}


def _per_sequence(nats: float | None) -> float | None:
    return None if nats is None else SEQUENCE * nats
