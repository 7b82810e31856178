"""From runs to medians and quartiles. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from runs import Job, Run
from task import Size, Study

Summary = dict[str, Any]


def quartiles(values: Sequence[float]) -> list[float]:
    """Median, lower and upper quartile."""
    return [float(value) for value in np.quantile(np.asarray(values, float), (0.5, 0.25, 0.75))]


def summarise(study: Study, results: Mapping[Job, Run]) -> Summary:
    """What the runs of a study come to; `results` holds at least one learned and one fixed run of it."""
    mine = {job: run for job, run in results.items() if job.study == study.name}
    sizes = sorted({job.size for job in mine if job.size is not None})
    rows = {label(size): _row(study, mine, size) for size in (None, *sizes)}
    first = next(iter(study.metrics))
    fixed = {name: row for name, row in rows.items() if name != "learned"}
    best = min(fixed, key=lambda name: fixed[name][first][0])
    return {
        "title": study.title,
        "rows": rows,
        "best fixed": best,
        "against": {name: _pairs(mine, size, first) for size in sizes if (name := label(size))},
        "sweep seconds": sum(row["seconds"][0] for row in fixed.values()),
    }


def label(size: Size | None) -> str:
    """What a size is called in tables."""
    return "learned" if size is None else "-".join(map(str, size))


def _row(study: Study, runs: Mapping[Job, Run], size: Size | None) -> dict[str, Any]:
    chosen = [run for job, run in sorted(runs.items(), key=lambda item: item[0].seed) if job.size == size]
    units = {
        name: quartiles([run["units"][index] for run in chosen])
        for index, name in enumerate(chosen[0]["widths"])
    }
    return {
        "runs": len(chosen),
        **{metric: quartiles([run["scores"][metric] for run in chosen]) for metric in study.metrics},
        "parameters": quartiles([run["parameters"] for run in chosen]),
        "seconds": quartiles([run["seconds"] for run in chosen]),
        "units": units,
        "stopped": [run["stopped"] for run in chosen if run["stopped"] is not None],
    }


def _pairs(runs: Mapping[Job, Run], size: Size, metric: str) -> dict[str, float]:
    """The learned runs against those of a fixed size, seed by seed, as the split is the same."""
    ours, theirs = (
        {job.seed: run["scores"][metric] for job, run in runs.items() if job.size == one}
        for one in (None, size)
    )
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    return {
        "better": sum(difference < 0 for difference in differences),
        "same": sum(difference == 0 for difference in differences),
        "worse": sum(difference > 0 for difference in differences),
        "median difference": quartiles(differences)[0] if differences else float("nan"),
    }
