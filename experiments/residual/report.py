"""What the runs come to: a summary of plain numbers, and its tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import geometric_mean, median
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


def _overview(summary: Summary) -> Iterator[str]:
    yield (
        "| study | parameters, at most | best uniform shape | its error | learned | ratio of medians | "
        "by seed | by seed, against the best on it | middle of the grid |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    ratios = []
    for name, budgets in summary.items():
        study = STUDIES[name]
        for budget, ways in budgets.items():
            uniform, ours = ways["uniform"], errors(ways["learned"])
            best = best_uniform(uniform)
            theirs = errors(uniform[best])
            # The shape that is best for each seed: no one could have chosen that.
            least = [min(seed) for seed in zip(*map(errors, uniform.values()), strict=True)]
            middle = median(median(errors(runs)) for runs in uniform.values())
            ratios.append(median(ours) / median(theirs))
            yield (
                f"| {name} | {int(budget):,} | {_shape(uniform[best])}, of {len(uniform)} | "
                f"{_spread(study, theirs)} | {_spread(study, ours)} | {ratios[-1]:.3f} | "
                f"{_each(ours, theirs)} | {_each(ours, least)} | {middle:{study.style}} |"
            )
    yield f"| **geometric mean** | | | | | **{geometric_mean(ratios):.3f}** | | | |"


def _each(ours: Sequence[float], theirs: Sequence[float]) -> str:
    return ", ".join(f"{mine / other:.2f}" for mine, other in zip(ours, theirs, strict=True))


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
