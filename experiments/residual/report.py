"""What the runs come to: a summary of plain numbers, and its tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import nan, sqrt
from statistics import geometric_mean, mean, median, stdev
from typing import Any

from studies import STUDIES, Study
from train import Job

Runs = list[dict[str, Any]]
"""By seed."""

Summary = dict[str, dict[str, dict[str, Any]]]
"""By study and budget: `"learned"`, its runs, and `"uniform"`, those of each stream and number of blocks."""


def summary_of(runs: Mapping[Job, Mapping[str, Any]]) -> Summary:
    """The runs by study, budget and shape; the seeds in order."""
    summary: Summary = {}
    order = [*STUDIES]
    for job in sorted(runs, key=lambda job: (order.index(job.study), job.budget, job.seed)):
        ways = summary.setdefault(job.study, {}).setdefault(str(job.budget), {"learned": [], "uniform": {}})
        kept = {key: runs[job][key] for key in ("error", "parameters", "shape", "seconds")}
        if job.shape is None:
            ways["learned"].append({**kept, "sizes": runs[job]["sizes"]})
        else:
            name = "stream {}, blocks {}".format(*job.shape)
            ways["uniform"].setdefault(name, []).append(kept)
    return summary


def report(summary: Summary) -> str:
    """The tables, in Markdown."""
    lines = ["# Residual networks with everything learned, beside grids of uniform shapes", ""]
    lines += ["Errors on test data, medians over seeds (least–most); ratios below 1: learned is better.", ""]
    lines += [*_overview(summary), ""]
    for name, budgets in summary.items():
        study = STUDIES[name]
        lines += [f"## {name}: {study.title}", "", f"What is measured is {study.metric}.", ""]
        for budget, ways in budgets.items():
            lines += [f"### At most {int(budget):,} parameters", ""]
            lines += [*_learned(study, ways["learned"]), "", *_uniform(study, ways["uniform"]), ""]
    return "\n".join(lines)


def errors(runs: Runs) -> list[float]:
    """Of each seed."""
    return [run["error"] for run in runs]


def best_uniform(uniform: Mapping[str, Runs]) -> str:
    """The stream and number of blocks with the least median; of equals, that with the least mean."""
    return min(uniform, key=lambda name: (median(errors(uniform[name])), sum(errors(uniform[name]))))


def paired(ours: Sequence[float], theirs: Sequence[float], style: str) -> tuple[float, str]:
    """The ratio of means over the same seeds; and the cells of a table that tell it, the difference with its
    standard error, and on how many seeds ours is better, as bad, and worse."""
    apart = [mine - other for mine, other in zip(ours, theirs, strict=True)]
    ratio = mean(ours) / mean(theirs)
    error = stdev(apart) / sqrt(len(apart)) if len(apart) > 1 else nan
    signs = " / ".join(
        str(sum(sign(each) for each in apart)) for sign in ((0.0).__gt__, (0.0).__eq__, (0.0).__lt__)
    )
    return ratio, f"{ratio:.3f} | {mean(apart):+{style}} ± {error:{style}} | {signs}"


def _overview(summary: Summary) -> Iterator[str]:
    yield (
        "| study | parameters, at most | best uniform shape | seeds | its error | learned | "
        "ratio of medians | ratio of means | difference | better, as bad, worse | middle of the grid |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    medians, means = [], []
    for name, budgets in summary.items():
        study = STUDIES[name]
        for budget, ways in budgets.items():
            uniform, ours = ways["uniform"], errors(ways["learned"])
            best = best_uniform(uniform)
            theirs = errors(uniform[best])
            middle = median(median(errors(runs)) for runs in uniform.values())
            ratio, told = paired(ours, theirs, study.style)
            medians.append(median(ours) / median(theirs))
            means.append(ratio)
            yield (
                f"| {name} | {int(budget):,} | {_shape(uniform[best])}, of {len(uniform)} | {len(ours)} | "
                f"{_spread(study, theirs)} | {_spread(study, ours)} | {medians[-1]:.3f} | {told} | "
                f"{middle:{study.style}} |"
            )
    both = f"**{geometric_mean(medians):.3f}** | **{geometric_mean(means):.3f}**"
    yield f"| **geometric mean** | | | | | | {both} | | | |"


def _learned(study: Study, runs: Runs) -> Iterator[str]:
    yield f"| learned, seed | from | parameters | {study.metric} | stream | inner widths | seconds |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for seed, run in enumerate(runs):
        sizes = run["sizes"]
        inner = ", ".join(str(sizes[f"blocks.{block}.up"]) for block in range(sizes["blocks"]))
        [stream] = [size for name, size in sizes.items() if name.startswith("stem")]
        stream_from, inner_from, most = run["shape"]
        yield (
            f"| {seed} | 1 x {inner_from}, stream {stream_from}, room for {most} | {run['parameters']:,} | "
            f"{run['error']:{study.style}} | {stream} | {inner} | {run['seconds']:.0f} |"
        )


def _uniform(study: Study, uniform: Mapping[str, Runs]) -> Iterator[str]:
    yield f"| uniform: blocks x inner width | parameters | {study.metric} | by seed | seconds |"
    yield "| --- | --- | --- | --- | --- |"
    for name in sorted(uniform, key=lambda name: median(errors(uniform[name]))):
        runs = uniform[name]
        each = ", ".join(f"{error:{study.style}}" for error in errors(runs))
        taken = median(run["parameters"] for run in runs)
        seconds = median(run["seconds"] for run in runs)
        yield f"| {_shape(runs)} | {taken:,} | {_spread(study, errors(runs))} | {each} | {seconds:.0f} |"


def _shape(runs: Runs) -> str:
    """Its inner width may differ by seed, since the number of columns does."""
    inner = sorted({run["shape"][1] for run in runs})
    stream, _, blocks = runs[0]["shape"]
    told = str(inner[0]) if len(inner) == 1 else f"{inner[0]}–{inner[-1]}"
    return f"{blocks} x {told}, stream {stream}"


def _spread(study: Study, values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:{study.style}}"
    return f"{median(values):{study.style}} ({min(values):{study.style}}–{max(values):{study.style}})"
