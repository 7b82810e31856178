"""From runs to medians, quartiles and ratios. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from runs import Job, Run
from task import Study, Way

Summary = dict[str, Any]
Runs = Mapping[Way, Mapping[int, Run]]


def quartiles(values: Iterable[float]) -> list[float]:
    """Median, lower and upper quartile."""
    return [float(value) for value in np.quantile(np.asarray([*values], float), (0.5, 0.25, 0.75))]


def line(ladder: Sequence[tuple[int, float]], parameters: int) -> float | None:
    """The error of uniform sizes at so many parameters, interpolated in their logarithm; None beyond them.

    Args:
        ladder: parameters and error of each uniform size.
        parameters: those of the model to compare.
    """
    sizes, errors = zip(*sorted(ladder), strict=True)
    if not sizes[0] <= parameters <= sizes[-1]:
        return None
    return float(np.interp(math.log(parameters), np.log(sizes), errors))


def ratio(error: float, other: float) -> float:
    """One error over another; two of nothing are the same."""
    return 1.0 if error == other else error / other if other else math.inf


def summarise(study: Study, results: Mapping[Job, Run], quick: bool = False) -> Summary | None:
    """What the runs of a study come to, over the seeds that have all of them; None where there are none."""
    ways = study.ways(quick)
    found: dict[Way, dict[int, Run]] = {way: {} for way in ways}
    for job, run in results.items():
        if job.study == study.name and job.quick == quick and job.way in found:
            found[job.way][job.seed] = run
    seeds = sorted(set.intersection(*({*each} for each in found.values())))
    if not seeds:
        return None
    runs: Runs = {way: {seed: found[way][seed] for seed in seeds} for way in ways}
    uniform, learned = ([way for way in ways if way.how == how] for how in ("uniform", "learned"))
    ladders = {
        seed: [(run["parameters"], run["score"]) for run in (runs[way][seed] for way in uniform)]
        for seed in seeds
    }
    return {
        "title": study.title,
        "metric": study.metric,
        "language": study.language,
        "measure": study.measure,
        "seeds": len(seeds),
        "own": quartiles(run["own"] for run in runs[learned[0]].values()),
        "uniform": {str(way): _row(runs[way]) for way in uniform},
        "learned": {str(way): _compared(runs, way, ladders) for way in learned},
    }


def _row(runs: Mapping[int, Run]) -> dict[str, Any]:
    """Of one way, all seeds."""
    return {
        what: quartiles(run[what] for run in runs.values()) for what in ("parameters", "score", "seconds")
    }


def _compared(runs: Runs, way: Way, ladders: Mapping[int, Sequence[tuple[int, float]]]) -> dict[str, Any]:
    """A learned row beside the uniform line, and beside Torch-Pruning at the same budget."""
    mine = runs[way]
    pruned = runs.get(Way("pruned", share=way.share)) if way.share is not None else None
    return {
        **_row(mine),
        "share": way.share,
        "of own": quartiles(run["parameters"] / run["own"] for run in mine.values()),
        "used": _used(mine) if way.share is not None else None,
        **_beside(mine, ladders),
        "units": {
            name: quartiles(run["units"][name] for run in mine.values())
            for name in next(iter(mine.values()))["units"]
        },
        "warned": sum(bool(run["warnings"]) for run in mine.values()),
        "pruned": None
        if pruned is None
        else {
            **_row(pruned),
            "used": _used(pruned),
            **_beside(pruned, ladders),
            "learned over pruned": quartiles(
                ratio(run["score"], pruned[seed]["score"]) for seed, run in mine.items()
            ),
        },
    }


def _used(runs: Mapping[int, Run]) -> list[float]:
    """Parameters over the budget."""
    return quartiles(run["parameters"] / run["budget"] for run in runs.values())


def _beside(runs: Mapping[int, Run], ladders: Mapping[int, Sequence[tuple[int, float]]]) -> dict[str, Any]:
    """The uniform line at as many parameters, and the error over it, seed by seed."""
    lines = {seed: line(ladders[seed], run["parameters"]) for seed, run in runs.items()}
    inside = {seed: value for seed, value in lines.items() if value is not None}
    return {
        "outside": len(runs) - len(inside),
        "line": quartiles(inside.values()) if inside else None,
        "ratio": quartiles(ratio(runs[seed]["score"], value) for seed, value in inside.items())
        if inside
        else None,
    }


def overall(summaries: Mapping[str, Summary]) -> dict[str, Any]:
    """Geometric means of the median ratios: of each task, of small tasks, of language models, of both, and of
    what was compared by multiply-adds."""
    parts = {name: [summary] for name, summary in summaries.items()}
    equal = {
        what: [s for s in summaries.values() if s["measure"] == what]
        for what in ("parameters", "multiply-adds")
    }
    for name, language in (("small tasks", False), ("language models", True)):
        parts[name] = [each for each in equal["parameters"] if each["language"] == language]
    parts["all, at equal parameters"] = equal["parameters"]
    parts["all, at equal multiply-adds"] = equal["multiply-adds"]
    return {name: _means(part) for name, part in parts.items() if part}


def _means(summaries: Sequence[Summary]) -> dict[str, float | None]:
    rows = [row for summary in summaries for row in summary["learned"].values()]
    pruned = [row["pruned"] for row in rows if row["pruned"] is not None]
    budgets = [row for row in rows if row["share"] is not None]
    return {
        "budgets": mean(_medians(budgets, "ratio")),
        "price": mean(_medians((row for row in rows if row["share"] is None), "ratio")),
        "both": mean(_medians(rows, "ratio")),
        "pruned": mean(_medians(pruned, "ratio")),
        "learned over pruned": mean(_medians(pruned, "learned over pruned")),
        "used": min(_medians(budgets, "used")),
    }


def _medians(rows: Iterable[Mapping[str, Any]], what: str) -> Iterator[float]:
    return (row[what][0] for row in rows if row[what] is not None)


def mean(values: Iterable[float]) -> float | None:
    """The geometric mean; None of nothing."""
    logarithms = [math.log(value) if value else -math.inf for value in values]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else None
